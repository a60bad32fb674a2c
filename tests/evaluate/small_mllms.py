"""Tiny random models of the classes that baselines ask, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import tiny_config, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
SIZE |= {"num_attention_heads": 4}
WORDS = ("It", "is", "a", "the", "red", "cat", "dog", "house", "left", "right", "eye", "of", ".")


def spread(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights wide enough that outputs differ clearly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def save_internvl(folder: Path) -> Path:
    """An InternVL -hf checkpoint with its tokenizer: what the tiny base is."""
    ours = tiny_config()
    config = InternVLConfig(
        vision_config=ours.vision_config.to_dict(),
        text_config=ours.text_config.to_dict(),
        image_token_id=ours.image_token_id,
    )
    torch.manual_seed(0)
    spread(InternVLForConditionalGeneration(config)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_llava(folder: Path, vip: bool = False) -> Path:
    """A LLaVA with a chat template, or a ViP-LLaVA, and its processor."""
    tokenizer = tiny_tokenizer(("<image>",))
    side = {"height": 28, "width": 28}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=side)
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=None if vip else TEMPLATE,
    )
    layers = {"num_hidden_layers": 3} if vip else {}
    vision = SIZE | layers | {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    text = SIZE | {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    image = tokenizer.convert_tokens_to_ids("<image>")
    shared = {"vision_config": vision, "text_config": text, "image_token_id": image}
    torch.manual_seed(0)
    if vip:
        model = VipLlavaForConditionalGeneration(
            VipLlavaConfig(**shared, vision_feature_layers=[-1, -2])
        )
    else:
        model = LlavaForConditionalGeneration(LlavaConfig(**shared))
    spread(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def kosmos_tokenizer() -> PreTrainedTokenizerFast:
    """Words, the special tokens of XLM-RoBERTa, and room behind `<unk>` for image tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    image = [f"<image_{number}>" for number in range(64)]
    ids = {token: place for place, token in enumerate([*special, *image, *WORDS])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
    )


def save_kosmos(folder: Path) -> Path:
    """A KOSMOS-2 of 224-pixel images, 64 image tokens and 1024 location tokens."""
    side = {"height": 224, "width": 224}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=side)
    processor = Kosmos2Processor(pictures, kosmos_tokenizer())
    tokenizer = processor.tokenizer
    text = {
        "vocab_size": len(tokenizer),
        "embed_dim": 48,
        "layers": 2,
        "ffn_dim": 96,
        "attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = SIZE | {"image_size": 224, "patch_size": 14}
    config = Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=64)
    torch.manual_seed(0)
    spread(Kosmos2ForConditionalGeneration(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
