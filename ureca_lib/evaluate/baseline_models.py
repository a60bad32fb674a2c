"""Models that read pictures for the prompted baselines: an InternVL of ours, or a chat model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ureca_lib.annotate.replies import clean_reply, final_answer
from ureca_lib.chat import (
    AnnotatorUnavailableError,
    BudgetSpentError,
    ChatModel,
    ChatReply,
    NoAnswerError,
    OpenAIChat,
    Turn,
)
from ureca_lib.checkpoints import load_pair
from ureca_lib.checkpoints.internvl import internvl_reader
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.conversation import TURN_END
from ureca_lib.decoding import BatchRows, greedy
from ureca_lib.evaluate.baselines import Ask
from ureca_lib.evaluate.predict import StoppedEarlyError
from ureca_lib.evaluate.systems import Said, model_record
from ureca_lib.event_loop import run_coroutine
from ureca_lib.processor import UrecaProcessor
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
    """A chat model: behind a server, GPT-4o among them, or of transformers in this process.

    Answers are not corrected. A server's are cleaned of quotes and labels around them.

    Args:
        chat: the model.
    """

    def __init__(self, chat: ChatModel):
        self._chat, self._served = chat, isinstance(chat, OpenAIChat)
        self.name = "transformers"
        self.model: Mapping[str, Any] = model_record(chat.model)
        if isinstance(chat, OpenAIChat):
            self.name, self.model = "server", {"path": chat.model, "server": chat.base_url}
        self.settings = chat.answer_settings

    def read(self, asks: Sequence[Ask]) -> list[Said]:
        """See `Reader`; the asks are of one photo.

        Raises:
            StoppedEarlyError: the budget is spent or the model is unavailable, with the answers so
                far.
        """
        return run_coroutine(self._read(asks))

    async def _read(self, asks: Sequence[Ask]) -> list[Said]:
        stopped: list[Exception] = []
        photo, slots = object(), asyncio.Semaphore(self._chat.max_in_flight)

        async def answer(ask: Ask) -> Said | None:
            async with slots:
                if stopped:
                    return None  # not asked any more
                try:
                    turn = Turn("user", ask.question)
                    return self._said(await self._chat.complete([turn], [ask.view], photo))
                except NoAnswerError as error:
                    return Said("", error=str(error))
                except (AnnotatorUnavailableError, BudgetSpentError) as error:
                    stopped.append(error)
                    return None

        found = await asyncio.gather(*map(answer, asks))
        if stopped:
            raise StoppedEarlyError(found, stopped[0])
        return found

    def _said(self, reply: ChatReply) -> Said:
        if not self._served:
            return Said(final_answer(reply.text).strip(), reply.score)
        text = clean_reply("long", reply.text)
        return Said(text) if text else Said("", error=f"the reply {reply.problem or 'is empty'}")


def _load_own(model: str | Path, device: str) -> tuple[Any, UrecaProcessor]:
    """A network with an InternVL inside, and a processor that fits it."""
    folder = Path(model).expanduser()
    reader = internvl_reader(folder) if (folder / "config.json").is_file() else None
    if reader is None:
        return load_pair(model, device)
    network = reader(folder, device=device)
    return network, UrecaProcessor.from_config(network.config, load_tokenizer(folder))
