"""Captions for all regions of an image together."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch

from ureca_lib.checkpoints import load_model_and_processor
from ureca_lib.conversation import QUESTION, TURN_END
from ureca_lib.decoding import (
    Batch,
    Decoded,
    TokenTree,
    activation_bytes,
    free_bytes,
    in_groups,
    log_likelihoods,
    search,
    sequence_bytes,
)
from ureca_lib.model import UrecaForConditionalGeneration, prompt_positions
from ureca_lib.processor import Photo, UrecaProcessor, load_photo
from ureca_lib.regions import Region
from ureca_lib.tiling import MaskLike, as_region
from ureca_lib.together import BEAMS, assign, clashing, normalized

MAX_NEW_TOKENS = 256
REGIONS_PER_GROUP = 32  # attention to a tree passes over all regions' tokens
TOKENS_PER_TREE = 1024  # of prompts in a group, or as many as the image has, if those are more
MASKS_PER_PASS = 8
MASKED_ATTENTION = ("sdpa", "eager")  # support masks of any form, which a tree of tokens needs
TOKENS_PER_PASS = 4096  # new tokens of a tree that are run together when captions are scored


@dataclass(frozen=True)
class Caption:
    """A generated caption of a region.

    Attributes:
        region_id: the region's id; for a mask without one, its place in the list.
        text: the caption.
        score: mean log-probability of its tokens, the one that ends it included: at most 0.
        log_likelihood: their sum, as `RegionCaptioner.score` gives it.
        instead_of: the region's own caption, if that clashed with another region's and captions
            were chosen together.
        cost: log-likelihood of `instead_of` minus that of `text`.
    """

    region_id: int | str
    text: str
    score: float
    log_likelihood: float
    instead_of: str | None = None
    cost: float = 0.0


class _Encoded(NamedTuple):
    """An image as the language model sees it, and the prompt about one of its regions."""

    size: tuple[int, int]  # (H, W)
    max_tiles: int | None
    features: torch.Tensor  # (T, tokens, D)
    prompt: torch.Tensor  # (L,) ids
    positions: torch.Tensor  # (L,) of the prompt's tokens that follow the stem
    stem: TokenTree  # the leading ids with the image, which no mask changes; may be empty


class RegionCaptioner:
    """A model and its processor, ready to caption regions.

    The image is encoded once. With the mask after the image, the image's keys and values are
    computed once too and shared by all regions; with the mask before it (paper) each region's
    sequence is its own, and regions are batched.

    Args:
        model, processor: a matching pair. The language model is set to "sdpa" attention where
            its attention supports causal masks only.
        photos: number of photos whose features are kept for the next call, as a server needs it.

    Raises:
        ValueError: their placeholder ids differ.
    """

    def __init__(
        self, model: UrecaForConditionalGeneration, processor: UrecaProcessor, photos: int = 0
    ):
        self.model, self.processor, self._photos = model.eval(), processor, photos
        self._kept: OrderedDict[tuple[bytes, int | None], torch.Tensor] = OrderedDict()
        processor.match(model.config)
        language = model.model.language_model
        if language.config._attn_implementation not in MASKED_ATTENTION:
            language.set_attn_implementation("sdpa")

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device = "cpu", photos: int = 0
    ) -> Self:
        """Load a checkpoint folder of ours, or one in the published layout with its tokenizer.

        Args:
            path: the folder, or for ours a hub id "org/name".
            device: where the model runs.
            photos: see the constructor.

        Raises:
            CheckpointError: no such folder, one without a tokenizer, or a published checkpoint
                that cannot be read.
        """
        return cls(*load_model_and_processor(path, device), photos)

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    @torch.inference_mode()
    def caption(
        self,
        image: Photo,
        regions: Sequence[MaskLike],
        question: str | Sequence[str] = QUESTION,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_tiles: int | None = None,
        progress: bool = True,
        beams: int = 1,
        together: bool = False,
    ) -> list[Caption]:
        """A caption for each region, in order.

        Args:
            image: a path, a PIL image or an array; see `ureca_lib.regions.load_image`.
            regions: `Region`s, (H, W) arrays or COCO encodings, of the image's size.
            question: asked about each region, or one question per region.
            max_new_tokens: length of a caption at most, in tokens.
            max_tiles: of the image's grid; by default the processor's for inference.
            progress: show a bar.
            beams: width of the search; 1 decodes greedily.
            together: ours, not the paper's: regions that say the same choose again, among the
                likeliest captions of a search with at least `ureca_lib.together.BEAMS` beams.
                `regions` should be all regions of the photo.

        Returns:
            One caption per region.

        Raises:
            RegionError: an unreadable image, a mask that is empty or of another size.
            ValueError: not one question per region, or a question with a special token.
            torch.OutOfMemoryError: one region alone does not fit.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        regions = [as_region(mask, number) for number, mask in enumerate(regions)]
        questions = [question] * len(regions) if isinstance(question, str) else list(question)
        if len(questions) != len(regions):
            raise ValueError(f"{len(questions)} questions for {len(regions)} regions")
        if not regions:
            return []
        size, features = self._features(image, regions, max_tiles)
        # of the latest question: most calls have one
        encode = lru_cache(1)(lambda asked: self._encode(size, features, asked, max_tiles))

        def answers(places: Sequence[int], width: int) -> dict[int, list[Caption]]:
            """The likeliest captions of some regions."""
            found: dict[int, list[Caption]] = {}
            # regions with the same question are captioned together
            for asked in dict.fromkeys(questions[place] for place in places):
                same = [place for place in places if questions[place] == asked]
                encoded = encode(asked)
                decoded = in_groups(
                    [regions[place] for place in same],
                    self._fitting(encoded, max_new_tokens, width),
                    lambda group: self._decode(encoded, group, max_new_tokens, width),  # noqa: B023
                    progress,
                )
                for place, each in zip(same, decoded, strict=True):
                    found[place] = [self._caption(regions[place].id, one) for one in each]
            return found

        captions = [found[0] for _, found in sorted(answers(range(len(regions)), beams).items())]
        if together:
            texts = [caption.text for caption in captions]
            choices = answers(clashing(texts), max(beams, BEAMS))
            for place, found in choices.items():
                found.append(captions[place])  # its own, which a wide search may have dropped
            pairs = {p: [(c.text, c.log_likelihood) for c in found] for p, found in choices.items()}
            for place, number in assign(texts, pairs).items():
                own, new = captions[place], choices[place][number]
                if normalized(new.text) != normalized(own.text):
                    cost = own.log_likelihood - new.log_likelihood
                    captions[place] = replace(new, instead_of=own.text, cost=cost)
        return captions

    @torch.inference_mode()
    def score(
        self,
        image: Photo,
        regions: Sequence[MaskLike],
        captions: Sequence[str],
        question: str = QUESTION,
        max_tiles: int | None = None,
        progress: bool = True,
    ) -> torch.Tensor:
        """Log-likelihood of each caption for each region.

        Args:
            captions: C texts; an empty one is an answer that ends at once.
            The rest: see `caption`.

        Returns:
            (R, C) float32 on the CPU: log p(caption | image, region), summed over the caption's
            tokens and the one that ends it.

        Raises:
            RegionError: see `caption`; ValueError: a caption holds a special token.
        """
        regions = [as_region(mask, number) for number, mask in enumerate(regions)]
        conversation = self.processor.conversation
        answers = [conversation.answer_ids(text, question) for text in captions]
        if not regions or not answers:
            return torch.zeros(len(regions), len(answers))
        encoded = self._encode(*self._features(image, regions, max_tiles), question, max_tiles)
        rows = in_groups(
            regions,
            # without a stem, each region's prompt is the stem of its own captions
            self._fitting(encoded, max(map(len, answers))) if len(encoded.stem) else 1,
            lambda group: self._score(encoded, group, answers),
            progress,
        )
        return torch.stack(rows)

    def _features(
        self, image: Photo, regions: list[Region], max_tiles: int | None
    ) -> tuple[tuple[int, int], torch.Tensor]:
        """(H, W) of the image, and (T, tokens, D) features of its tiles."""
        photo = load_photo(image, regions[0].size)
        size = photo.shape[:2]
        for region in regions:
            region.check_size(*size)
        key = None
        if self._photos:
            key = hashlib.sha256(np.ascontiguousarray(photo)).digest(), max_tiles
        if (features := self._kept.pop(key, None)) is None:
            pixels = self.processor.image_tiles(photo, max_tiles).to(self.device)
            features = self.model.get_image_features(pixels).pooler_output
        self._kept[key] = features  # the latest at the end
        while len(self._kept) > self._photos:
            self._kept.popitem(last=False)
        return size, features

    def _encode(
        self, size: tuple[int, int], features: torch.Tensor, question: str, max_tiles: int | None
    ) -> _Encoded:
        mask_tiles = self.processor.count_mask_tiles(size, max_tiles)
        ids, _ = self.processor.token_ids(question, None, len(features), mask_tiles)
        first_mask = ids.index(self.processor.mask_token_id)
        prompt = torch.tensor(ids, device=self.device)
        stem = TokenTree(self.model.model.language_model)
        if self.processor.image_token_id not in ids[first_mask:]:
            shared = prompt[None, :first_mask]
            stem.grow([self.model.model.embed_inputs(shared, image_features=features)[0]])
        places = prompt_positions(self.model.config, prompt[None], torch.ones_like(prompt)[None])
        return _Encoded(size, max_tiles, features, prompt, places[0, len(stem) :], stem)

    def _prompts(self, encoded: _Encoded, group: Sequence[Region]) -> torch.Tensor:
        """(R, L, D) embeddings of what follows the shared ids, each region with its own mask."""
        masks, image = [], (encoded.size, encoded.max_tiles)
        for start in range(0, len(group), MASKS_PER_PASS):
            part = group[start : start + MASKS_PER_PASS]
            tiles = self.processor.distinct_mask_tiles(part, *image).to(self.device)
            places = self.processor.mask_places(*image)
            if places is not None:
                places = places.repeat(len(part), 1).to(self.device)  # (T, 2) -> (R * T, 2)
            values = tiles.values(self.processor.mask_scale)[:, None]  # (K, S, S) -> (K, 1, S, S)
            # (R * T, N, D)
            masks.append(self.model.get_mask_features(values, places, tiles.index.flatten()))
        shared = len(encoded.stem)
        return self.model.model.embed_inputs(
            encoded.prompt[shared:].expand(len(group), -1),
            image_features=None if shared else encoded.features.repeat(len(group), 1, 1),
            mask_features=torch.cat(masks),
        )

    def _decode(
        self, encoded: _Encoded, group: Sequence[Region], max_new_tokens: int, beams: int
    ) -> list[list[Decoded]]:
        prompts, stem = self._prompts(encoded, group), encoded.stem
        head, embedding = self.model.lm_head, self.model.get_input_embeddings()
        sequences = stem if len(stem) else Batch(self.model.model.language_model)
        limits = (self._stops(), max_new_tokens, beams)
        with stem.restored():
            return search(sequences, prompts, head, embedding, *limits, encoded.positions)

    def _score(
        self, encoded: _Encoded, group: Sequence[Region], answers: list[list[int]]
    ) -> list[torch.Tensor]:
        prompts, tree = self._prompts(encoded, group), encoded.stem
        head, embedding = self.model.lm_head, self.model.get_input_embeddings()
        longest = max(map(len, answers))
        size = max(1, TOKENS_PER_PASS // (len(group) * longest))  # captions that are run together
        with tree.restored():
            # without a stem the group is one region, whose whole prompt is its captions' stem
            tree.fork([0] * len(group))
            starts = [hidden[-1] for hidden in tree.grow(list(prompts), encoded.positions)]
            parts = [
                log_likelihoods(tree, starts, answers[first : first + size], head, embedding)
                for first in range(0, len(answers), size)
            ]
        return list(torch.cat(parts, dim=1))

    def _caption(self, region_id: int | str, decoded: Decoded) -> Caption:
        text = self.processor.tokenizer.decode(decoded.ids, skip_special_tokens=True).strip()
        mean = decoded.log_likelihood / decoded.tokens
        return Caption(region_id, text, mean, decoded.log_likelihood)

    def _stops(self) -> set[int]:
        """Ids that end a caption: of the chat, the tokenizer and the generation config."""
        tokenizer = self.processor.tokenizer
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        stops = {tokenizer.convert_tokens_to_ids(TURN_END), tokenizer.eos_token_id, *listed}
        return stops - {None}

    def _fitting(self, encoded: _Encoded, new_tokens: int, beams: int = 1) -> int:
        """Number of regions that fit into memory together."""
        text, item = self.model.config.text_config, self.model.lm_head.weight.element_size()
        shared, most = len(encoded.stem), REGIONS_PER_GROUP
        length = len(encoded.prompt) - shared
        kept = beams * sequence_bytes(text, length + new_tokens, item)
        each = kept + activation_bytes(text, length, item)
        if shared:  # run in one pass, under an attention mask as wide as the tree
            each += length * len(encoded.prompt) * item
            most = min(most, max(TOKENS_PER_TREE, shared) // length)
        return max(1, min(most, free_bytes(self.device) // each))
