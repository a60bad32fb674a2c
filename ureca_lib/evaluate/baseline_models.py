"""Models that read pictures for the baselines: this package's, transformers', and servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from ureca_lib.annotate.openai_annotator import OpenAIAnnotator
from ureca_lib.annotate.protocol import (
    AnnotatorUnavailableError,
    BudgetSpentError,
    Context,
    Request,
)
from ureca_lib.checkpoints import load_pair
from ureca_lib.checkpoints.internvl import internvl_reader
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.conversation import TURN_END
from ureca_lib.decoding import BatchRows, greedy
from ureca_lib.evaluate.baselines import Ask
from ureca_lib.evaluate.predict import StoppedEarlyError
from ureca_lib.evaluate.systems import Said, UnusableSystemError, model_record
from ureca_lib.mask_tree import MaskTree
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import RegionImage
from ureca_lib.tiling import best_grid

MAX_NEW_TOKENS = 256


class OwnReader:
    """An InternVL read by this package: a base in transformers' layout, or a URECA without masks.

    The question stands in the chat format without mask tokens, behind the image.

    Args:
        model: folder of the checkpoint, with its tokenizer.
        device: where it runs. max_new_tokens: of an answer. batch_size: asks that go together.
        max_tiles: of an image's grid; by default the model's for inference.

    Raises:
        CheckpointError: no such checkpoint, or one without a tokenizer.
    """

    name = "ureca-lib"

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_tiles: int | None = None,
        batch_size: int = 4,
    ):
        self._network, self._processor = _load_own(model, device)
        self.model, self._batch_size = model_record(model), batch_size
        self.settings = {"max_new_tokens": max_new_tokens, "max_tiles": max_tiles}

    def read(self, asks: Sequence[Ask]) -> list[Said]:
        """See `Reader`."""
        found: dict[int, Said] = {}
        for group in self._groups(asks):
            found |= zip(group, self._answers([asks[place] for place in group]), strict=True)
        return [found[place] for place in range(len(asks))]

    def _groups(self, asks: Sequence[Ask]) -> Iterator[list[int]]:
        """Places of asks whose prompts have one length, so that none needs padding."""
        same: dict[tuple[int, int], list[int]] = {}
        for place, ask in enumerate(asks):
            tiles = self._tiles(*ask.view.shape[:2])
            words = len(self._ids(ask.question, tiles))
            same.setdefault((tiles, words), []).append(place)
        for places in same.values():
            for start in range(0, len(places), self._batch_size):
                yield places[start : start + self._batch_size]

    @torch.inference_mode()
    def _answers(self, asks: Sequence[Ask]) -> list[Said]:
        network = self._network
        seen: dict[int, torch.Tensor] = {}  # a picture that several ask about is looked at once
        for ask in asks:
            if id(ask.view) not in seen:
                seen[id(ask.view)] = self._features(ask.view)
        features = [seen[id(ask.view)] for ask in asks]  # (T, tokens, D) each
        ids = [self._ids(a.question, len(f)) for a, f in zip(asks, features, strict=True)]
        prompts = network.model.embed_inputs(
            torch.tensor(ids, device=network.device), image_features=torch.cat(features)
        )
        rows = BatchRows(network.model.language_model, prompts)
        decoded = greedy(
            rows,
            network.lm_head,
            network.get_input_embeddings(),
            self._stops(),
            self.settings["max_new_tokens"],
        )
        decode = self._processor.tokenizer.decode
        return [
            Said(decode(d.ids, skip_special_tokens=True).strip(), d.log_likelihood / d.tokens)
            for d in decoded
        ]

    def _features(self, view: np.ndarray) -> torch.Tensor:
        tiles = self._processor.image_tiles(view, self._max_tiles)
        tiles = tiles.to(self._network.device, self._network.lm_head.weight.dtype)
        return self._network.get_image_features(tiles).pooler_output

    @property
    def _max_tiles(self) -> int:
        return self.settings["max_tiles"] or self._processor.max_tiles

    def _tiles(self, height: int, width: int) -> int:
        processor = self._processor
        grid = best_grid(width, height, self._max_tiles, processor.min_tiles, processor.tile_size)
        count = grid[0] * grid[1]
        return count + (processor.use_thumbnail and count > 1)

    def _ids(self, question: str, tiles: int) -> list[int]:
        conversation = replace(self._processor.conversation, with_mask=False)
        once = conversation.tokenize(question).input_ids
        image = self._processor.image_token_id
        repeats = self._processor.image_seq_length * tiles
        return [i for token in once for i in [token] * (repeats if token == image else 1)]

    def _stops(self) -> set[int]:
        tokenizer = self._processor.tokenizer
        return {tokenizer.convert_tokens_to_ids(TURN_END), tokenizer.eos_token_id} - {None}


class ChatReader:
    """Any image-text-to-text model of transformers that has a chat template.

    Nothing but weights is loaded: no code of a model's repository runs.

    Args:
        model: folder or hub id. device: where it runs. dtype: of the weights; auto is as stored.
        max_new_tokens: of an answer. batch_size: asks that go together.

    Raises:
        UnusableSystemError: it cannot be loaded, or has no chat template.
    """

    name = "transformers"

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        dtype: str = "auto",
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 4,
    ):
        found = load_transformers(AutoModelForImageTextToText, model, device, dtype)
        self._network, self._processor = found
        if not getattr(self._processor, "chat_template", None):
            raise UnusableSystemError(f"{model}: its processor has no chat template")
        self.model, self._batch_size = model_record(model), batch_size
        self.settings = {"max_new_tokens": max_new_tokens, "dtype": dtype}

    def read(self, asks: Sequence[Ask]) -> list[Said]:
        """See `Reader`."""
        found: list[Said] = []
        for start in range(0, len(asks), self._batch_size):
            found += self._answers(asks[start : start + self._batch_size])
        return found

    def _answers(self, asks: Sequence[Ask]) -> list[Said]:
        turns = [[{"role": "user", "content": _content(ask)}] for ask in asks]
        inputs = self._processor.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        )
        tokenizer = self._processor.tokenizer
        rows = generated(self._network, inputs, tokenizer, self.settings["max_new_tokens"])
        return [
            Said(self._processor.decode(ids, skip_special_tokens=True).strip(), score)
            for ids, score in rows
        ]


class ServerReader:
    """A model behind an OpenAI-compatible server, GPT-4o among them.

    Keys, retries, budgets and waiting are `OpenAIAnnotator`'s. An answer is cleaned of quotes and
    labels around it and is otherwise taken as it comes, for a baseline is not corrected.

    Args:
        annotator: made with `max_corrections=0`.
    """

    name = "server"

    def __init__(self, annotator: OpenAIAnnotator):
        if annotator.max_corrections:
            raise ValueError("a baseline is not corrected: make the annotator with none allowed")
        self._annotator = annotator
        self.model: Mapping[str, Any] = {"path": annotator.model, "server": annotator.base_url}
        self.settings = annotator.answer_settings

    def read(self, asks: Sequence[Ask]) -> list[Said]:
        """See `Reader`.

        Raises:
            StoppedEarlyError: a spent budget or a server that is gone, with the answers so far.
        """
        stopped: list[Exception] = []

        def answer(ask: Ask) -> Said | None:
            if stopped:
                return None  # not asked any more
            try:
                return self._answer(ask)
            except (AnnotatorUnavailableError, BudgetSpentError) as error:
                stopped.append(error)
                return None

        with ThreadPoolExecutor(self._annotator.max_in_flight) as pool:
            found = list(pool.map(answer, asks))
        if stopped:
            raise StoppedEarlyError(found, stopped[0])
        return found  # type: ignore[return-value]

    def _answer(self, ask: Ask) -> Said:
        height, width = ask.view.shape[:2]
        nothing = RegionImage([], width, height), MaskTree([], {})
        request = Request("long", *nothing, 0, ask.question, "baseline", [ask.view], Context())
        reply = self._annotator.answer(request)
        # a failed reply that has text only breaks the rules of the annotation
        return Said(reply.text) if reply.text else Said("", error=reply.error or "an empty reply")


def load_transformers(
    kind: Any, model: str | Path, device: str, dtype: str
) -> tuple[PreTrainedModel, Any]:
    """A model of a class of transformers, on its device, and its processor.

    Raises:
        UnusableSystemError: whatever is wrong with files, hub or device.
    """
    try:
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
        network = kind.from_pretrained(
            model, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        return network.to(device).eval(), processor
    except Exception as error:
        message = f"{model} cannot be loaded on {device}: {type(error).__name__}: {error}"
        raise UnusableSystemError(message) from error


@torch.inference_mode()
def generated(
    network: PreTrainedModel, inputs: Any, tokenizer: Any, max_new_tokens: int
) -> list[tuple[list[int], float]]:
    """Greedy answers of a model of transformers.

    Args:
        inputs: of B prompts, padded on the left.

    Returns:
        For each of B the ids before the one that ends it, and the mean log-probability of them
        all, that one included.
    """
    inputs = inputs.to(network.device, dtype=network.dtype)
    pad = tokenizer.pad_token_id
    out = network.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.eos_token_id if pad is None else pad,
        return_dict_in_generate=True,
        output_scores=True,
    )
    gains = network.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    eos = network.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
    found = []
    for ids, logs in zip(out.sequences[:, -gains.shape[1] :].tolist(), gains, strict=True):
        stop = next((place for place, token in enumerate(ids) if token in ends), None)
        length = len(ids) if stop is None else stop + 1
        found.append((ids[:stop], float(np.mean(logs[:length].float().cpu().numpy()))))
    return found


def _load_own(model: str | Path, device: str) -> tuple[Any, UrecaProcessor]:
    """A network with an InternVL inside, and a processor that fits it."""
    folder = Path(model).expanduser()
    reader = internvl_reader(folder) if (folder / "config.json").is_file() else None
    if reader is None:
        return load_pair(model, device)
    network = reader(folder, device=device)
    return network, UrecaProcessor.from_config(network.config, load_tokenizer(folder))


def _content(ask: Ask) -> list[dict[str, Any]]:
    picture = {"type": "image", "image": Image.fromarray(ask.view)}
    return [picture, {"type": "text", "text": ask.question}]
