"""A URECA model with a new mask encoder from an InternVL2.5 or InternVL3 checkpoint.

In transformers' layout (`-hf`, model type "internvl"), or in their own (model type
"internvl_chat"), which is read without the code that comes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

from ureca_lib.checkpoints.official import OfficialFiles
from ureca_lib.checkpoints.tensors import (
    CheckpointError,
    load_strict,
    read_json,
    reading,
)
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.configuration import MAX_TILES, MAX_TILES_TRAIN, UrecaConfig
from ureca_lib.conversation import IMAGE_CONTEXT, MASK_CONTEXT
from ureca_lib.model import UrecaForConditionalGeneration

_PREPROCESSOR = "preprocessor_config.json"
MASK_ENCODER = "model.mask_encoder."
_NEW_ROWS = 1024  # embeddings that a tokenizer may add; more means damaged ids
_CARRIED = (
    "vision_config",
    "text_config",
    "image_token_id",
    "downsample_ratio",
    "projector_hidden_act",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "tie_word_embeddings",
)
_CARRIED_OF_CHAT = (*_CARRIED, "pixel_shuffle", "tile_size", "use_thumbnail", "system_message")


def internvl_reader(path: str | Path) -> Callable[..., UrecaForConditionalGeneration] | None:
    """Choose the reader of an InternVL folder by its config.json; None if it has a mask encoder.

    Raises:
        CheckpointError: no config.json, or a folder in InternVL's own layout that cannot be read.
    """
    raw = read_json(Path(path) / "config.json")
    if raw.get("model_type") == InternVLConfig.model_type:
        return from_internvl_hf
    if "llm_config" in raw and not OfficialFiles(path).has_mask_encoder:
        return from_internvl_chat
    return None


def from_internvl_hf(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    mask_token_id: int | None = None,
    **settings,
) -> UrecaForConditionalGeneration:
    """Load InternVL's weights with a new mask encoder, the start of training's stage 1.

    Args:
        path: folder of an InternVL `-hf` checkpoint, with its tokenizer.
        dtype: of the parameters; by default as stored.
        device: where the parameters go. On "meta" no weights are read: names and shapes of the
            tensors are compared with the headers of the files.
        seed: of the new mask encoder's weights.
        mask_token_id: id of the mask placeholder; by default the tokenizer's, which gets the mask
            tokens in the published order. Embeddings are enlarged where they lack a row for it;
            new rows are the mean of the old ones.
        settings: fields of `UrecaConfig`, such as `num_mask_tokens` or `mask_position`. The number
            of tiles per image is that of the checkpoint's image processor, unless set here.

    Raises:
        CheckpointError: not such a checkpoint, pickles, files that are damaged or lack tensors, or
            neither tokenizer nor `mask_token_id`.
        TypeError: a setting that `UrecaConfig` does not have.
    """
    folder = Path(path)
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != InternVLConfig.model_type:
        kind = raw.get("model_type", "unknown")
        raise CheckpointError(folder, f"model type {kind!r}, not an InternVL -hf checkpoint")
    tokenizer = load_tokenizer(folder)
    if mask_token_id is None:
        if tokenizer is None:
            raise CheckpointError(folder, "no tokenizer to take a mask token from: give its id")
        mask_token_id = tokenizer.convert_tokens_to_ids(MASK_CONTEXT)
    meta = {"device_map": "meta"} if torch.device(device).type == "meta" else {}
    base = load_strict(InternVLForConditionalGeneration, folder, dtype=dtype or "auto", **meta)
    # a file that does not say so is tied by transformers' default, even where it has a head
    base.config.tie_word_embeddings = base.lm_head.weight is base.get_input_embeddings().weight
    fields = {name: getattr(base.config, name) for name in _CARRIED} | _grid(folder)
    fields |= {"mask_token_id": mask_token_id} | _known(settings)
    with reading(folder / "config.json"):
        config = UrecaConfig(**fields)
    with torch.device("meta"):
        model = UrecaForConditionalGeneration(config)
    for part in ("vision_tower", "multi_modal_projector", "language_model"):  # without a copy
        setattr(model.model, part, getattr(base.model, part))
    model.lm_head, model.generation_config = base.lm_head, base.generation_config
    rows = max(mask_token_id + 1, len(tokenizer or ()))
    return _completed(model, rows, seed, folder).to(device).eval()


def from_internvl_chat(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = False,
    **settings,
) -> UrecaForConditionalGeneration:
    """Load the same from InternVL's own layout, such as OpenGVLab/InternVL2_5-8B.

    Args:
        path: folder of the checkpoint, with its tokenizer.
        dtype, device, seed: see `from_internvl_hf`.
        progress: show a bar.
        settings: fields of `UrecaConfig`; tiles and system message are those of config.json,
            unless set here.

    Raises:
        CheckpointKeysError: tensors are missing, unexpected or of the wrong shape.
        CheckpointError: another layout, one that has a mask encoder, pickles, or no tokenizer.
        TypeError: a setting that `UrecaConfig` does not have.
    """
    files = OfficialFiles(path)
    if files.has_mask_encoder:
        raise CheckpointError(path, "it has a mask encoder: load_official reads it whole")
    if (tokenizer := load_tokenizer(files.folder)) is None:
        raise CheckpointError(path, "no tokenizer to take a mask token from")
    base = files.config
    fields = {name: getattr(base, name) for name in _CARRIED_OF_CHAT}
    fields |= _bounds(base.min_tiles, base.max_tiles_train) | _known(settings)
    with reading(files.folder / "config.json"):
        config = UrecaConfig(**fields)
    config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
    config.mask_token_id = tokenizer.convert_tokens_to_ids(MASK_CONTEXT)
    first = torch.device("meta" if torch.device(device).type == "meta" else "cpu")
    model = files.build(config, dtype, first, progress, left_empty=MASK_ENCODER)
    return _completed(model, len(tokenizer), seed, files.folder).to(device).eval()


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(settings) - set(UrecaConfig().to_dict())):
        raise TypeError(f"UrecaConfig has no field {', '.join(unknown)}")
    return settings


def _grid(folder: Path) -> dict[str, int]:
    """Bounds of the tile grid from transformers' image processor settings, if there are any."""
    path = folder / _PREPROCESSOR
    raw = read_json(path) if path.is_file() else {}
    with reading(path):
        return _bounds(raw.get("min_patches", 1), raw.get("max_patches", MAX_TILES))


def _bounds(least: int, most: int) -> dict[str, int]:
    trained = max(least, min(most, MAX_TILES_TRAIN))
    return {"min_tiles": least, "max_tiles": most, "max_tiles_train": trained}


def _completed(
    model: UrecaForConditionalGeneration, rows: int, seed: int, folder: Path
) -> UrecaForConditionalGeneration:
    """The model with a mask encoder drawn from the seed, and at least so many embeddings."""
    old, weight = model.config.text_config.vocab_size, model.lm_head.weight
    if rows > 2 * old + _NEW_ROWS:
        raise CheckpointError(
            folder, f"its tokenizer numbers {rows} tokens, but the model has {old} embeddings"
        )
    model.model.mask_encoder.to_empty(device=weight.device).to(weight.dtype)
    draw_mask_encoder(model, seed)
    if rows > old:
        model.resize_token_embeddings(rows, mean_resizing=False)
        with torch.no_grad():
            for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
                mean = layer.weight[:old].float().mean(dim=0)
                layer.weight[old:] = mean.to(layer.weight.dtype)
    return model


def draw_mask_encoder(model: UrecaForConditionalGeneration, seed: int) -> None:
    """Draw the mask encoder's weights anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.model.mask_encoder.reset_parameters()
