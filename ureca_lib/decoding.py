"""Captions and log-likelihoods of many regions of one image at a time.

All regions of an image share the image; all captions of a region share the region. Such sequences
are the branches of a tree: the whole tree is one row of tokens with one cache, in which a token
sees its ancestors and itself, at the position that it has in its own sequence. The result is
that of each sequence alone, up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import psutil
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedConfig

from ureca_lib.configuration import CACHE


class Sequences(Protocol):
    """A language model's state over sequences of tokens, numbered from 0."""

    def fork(self, parents: Sequence[int]) -> None:
        """Replace all sequences by continuations of `parents`; a parent may have several."""

    def grow(
        self, embeds: Sequence[torch.Tensor], position_ids: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Append (L, D) embeddings to each sequence.

        Args:
            embeds: for each sequence.
            position_ids: (L,) of the tokens of each, if not their places in the sequence.

        Returns:
            For each, the (L, D) hidden states of those tokens, as the language head takes them.
        """


class TokenTree:
    """Sequences that share their beginnings: one row of tokens, of which each sees its ancestors.

    There is one empty sequence at first.

    Args:
        language_model: a decoder of transformers that takes `inputs_embeds`, a four-dimensional
            additive `attention_mask`, `position_ids` and a cache.
    """

    def __init__(self, language_model: nn.Module):
        self.language_model = language_model
        self.cache = DynamicCache()
        self.device = language_model.embed_tokens.weight.device
        # (sequences, keys): the tokens of each sequence; others in the cache are of other branches
        self._own = torch.zeros(1, 0, dtype=torch.bool, device=self.device)

    def __len__(self) -> int:
        return self._own.shape[1]

    def fork(self, parents: Sequence[int]) -> None:
        """See `Sequences`; tokens of sequences that end here stay in the cache, unseen."""
        self._own = self._own[list(parents)]

    def grow(
        self, embeds: Sequence[torch.Tensor], position_ids: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """See `Sequences`."""
        lengths = [len(part) for part in embeds]
        if not any(lengths):
            return list(embeds)
        joined = torch.cat(list(embeds)).unsqueeze(0)  # (L, D) each -> (1, new, D)
        sequence = torch.tensor(np.repeat(range(len(embeds)), lengths), device=self.device)
        order = torch.cat([torch.arange(length) for length in lengths]).to(self.device)
        new = sequence == torch.arange(len(embeds), device=self.device)[:, None]
        before, self._own = self._own, torch.cat([self._own, new], dim=1)
        positions = before.sum(1)[sequence] + order
        if position_ids is not None:
            positions = position_ids.repeat(len(embeds))
        mask = None  # a beginning that nothing else shares yet is plainly causal
        if len(embeds) > 1 or before.any():
            # (new, keys): a new token sees its sequence as it was, and its new part up to itself
            seen = torch.cat([before[sequence], new[sequence] & (order <= order[:, None])], dim=1)
            mask = torch.zeros(seen.shape, dtype=joined.dtype, device=self.device)
            mask = mask.masked_fill_(~seen, torch.finfo(joined.dtype).min)[None, None]
        out = self.language_model(
            inputs_embeds=joined,
            attention_mask=mask,
            position_ids=positions.unsqueeze(0),
            use_cache=True,
            **{CACHE: self.cache},
        )
        return list(out.last_hidden_state[0].split(lengths))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Remove, at the end, all tokens and forks that are added within."""
        before = self._own
        try:
            yield
        finally:
            self._own = before
            for layer in self.cache.layers:
                # layer by layer: a run that failed half-way has reached some of them only
                if (extra := layer.get_seq_length() - len(self)) > 0:
                    layer.crop(-extra)


class Batch:
    """Sequences that share nothing and are equally long: an ordinary batch."""

    def __init__(self, language_model: nn.Module):
        self.language_model, self.cache = language_model, DynamicCache()

    def fork(self, parents: Sequence[int]) -> None:
        """See `Sequences`."""
        if self.cache.get_seq_length():
            self.cache.batch_select_indices(torch.tensor(parents))

    def grow(
        self, embeds: Sequence[torch.Tensor], position_ids: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """See `Sequences`."""
        given = {"inputs_embeds": torch.stack(list(embeds)), CACHE: self.cache}
        if position_ids is not None:
            given["position_ids"] = position_ids.expand(len(embeds), -1)
        return list(self.language_model(use_cache=True, **given).last_hidden_state)


_POSITIONS_PER_HEAD = 256  # positions whose logits exist at one time; a vocabulary is large


@dataclass(frozen=True)
class Decoded:
    """Generated ids, the one that ended them left out, and the log-probability of them all."""

    ids: tuple[int, ...] = ()
    log_likelihood: float = 0.0
    tokens: int = 0  # with the one that ended them
    ended: bool = False

    def followed_by(self, token: int, gain: float, stops: set[int]) -> Decoded:
        """The same with one token more, whose log-probability is `gain`."""
        ids, ended = self.ids, token in stops
        kept = ids if ended else (*ids, token)
        return Decoded(kept, self.log_likelihood + gain, self.tokens + 1, ended)


def search(
    sequences: Sequences,
    prompts: torch.Tensor,
    head: nn.Module,
    embedding: nn.Module,
    stops: set[int],
    max_new_tokens: int,
    beams: int = 1,
    position_ids: torch.Tensor | None = None,
) -> list[list[Decoded]]:
    """Beam search for each of R sequences: keep its `beams` likeliest answers, ended ones included.

    One beam is greedy decoding. Answers are compared by log-likelihood, whatever their length.

    Args:
        sequences: state that every prompt continues; if it is a tree, its sequence 0.
        prompts: (R, L, D) embeddings.
        head: (A, D) hidden states -> (A, V) logits.
        embedding: (A,) ids -> (A, D).
        stops: ids that end an answer.
        max_new_tokens: maximum number, the one that ends the answer included.
        beams: number of answers per sequence.
        position_ids: (L,) of each prompt's tokens, if not their places in the sequence.

    Returns:
        For each of the R sequences its answers, the likeliest first.
    """
    found = [[Decoded()] for _ in prompts]
    parents, embeds = [0] * len(prompts), prompts
    for _ in range(max_new_tokens):
        sequences.fork(parents)
        grown, position_ids = sequences.grow(list(embeds), position_ids), None
        hidden = torch.stack([states[-1] for states in grown])
        logits = head(hidden).float()
        # of tokens that are equally likely argmax takes the first, on every device
        best = logits.argmax(-1, keepdim=True) if beams == 1 else logits.topk(beams).indices
        gains = torch.log_softmax(logits, dim=-1).gather(1, best).tolist()
        steps = zip(best.tolist(), gains, strict=True)
        place = -1  # of an answer among the A that are being continued
        going: list[tuple[int, int]] = []  # of each that will be: its parent's place, its new token
        for row, answers in enumerate(found):
            options: list[tuple[Decoded, int]] = []
            for answer in answers:
                if answer.ended:
                    options.append((answer, -1))
                    continue
                place += 1
                for token, gain in zip(*next(steps), strict=True):
                    options.append((answer.followed_by(token, gain, stops), place))
            options.sort(key=lambda option: -option[0].log_likelihood)
            found[row] = [answer for answer, _ in options[:beams]]
            going += [(at, a.ids[-1]) for a, at in options[:beams] if not a.ended]
        if not going:
            break
        parents, tokens = map(list, zip(*going, strict=True))
        embeds = embedding(torch.tensor(tokens, device=prompts.device)).unsqueeze(1)  # (A, 1, D)
    return found


def log_likelihoods(
    tree: TokenTree,
    starts: list[torch.Tensor],
    captions: list[list[int]],
    head: nn.Module,
    embedding: nn.Module,
) -> torch.Tensor:
    """log p(caption | sequence), summed over the caption's tokens.

    Args:
        tree: its R sequences are what each caption is conditioned on; it is left as it was.
        starts: for each sequence, the (D,) hidden state of its last token.
        captions: C lists of ids, the one that ends a caption included.
        head: (A, D) hidden states -> (A, V) logits.
        embedding: (A,) ids -> (A, D).

    Returns:
        (R, C) float32, on the CPU.
    """
    targets = [torch.tensor(ids, device=tree.device) for ids in captions]
    pairs = [(number, target) for number in range(len(starts)) for target in targets]
    with tree.restored():
        tree.fork([number for number, _ in pairs])
        grown = tree.grow([embedding(target[:-1]) for _, target in pairs])
    # what predicts a caption's first token is the sequence's last state
    states = [torch.cat([starts[n][None], own]) for (n, _), own in zip(pairs, grown, strict=True)]
    gains = _log_probabilities(torch.cat(states), torch.cat([t for _, t in pairs]), head)
    totals = torch.stack([part.sum() for part in gains.split([len(t) for _, t in pairs])])
    return totals.view(len(starts), len(captions)).cpu()


def _log_probabilities(
    hidden: torch.Tensor, targets: torch.Tensor, head: nn.Module
) -> torch.Tensor:
    """(L, D) hidden states and the (L,) ids that follow them -> (L,) log-probabilities."""
    parts = zip(hidden.split(_POSITIONS_PER_HEAD), targets.split(_POSITIONS_PER_HEAD), strict=True)
    found = []
    for states, ids in parts:
        logits = head(states).float()  # on the head's device, which may be another
        chosen = ids[:, None].to(logits.device)
        found.append(torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0])
    return torch.cat(found)


Item = TypeVar("Item")
Result = TypeVar("Result")

_CPU_SHARE, _CUDA_SHARE = 0.4, 0.7  # of the memory that is free now


def free_bytes(device: torch.device) -> int:
    """Memory that a run may take: a share of what is free on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE)
    return int(psutil.virtual_memory().available * _CPU_SHARE)


def sequence_bytes(text: PreTrainedConfig, length: int, item: int) -> int:
    """Estimate of the memory of a sequence: keys and values, embeddings, logits of one token.

    Args:
        text: the language model's configuration.
        length: tokens, those to come included.
        item: bytes per number.
    """
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim
    return item * length * (keys + text.hidden_size) + 3 * 4 * text.vocab_size


def activation_bytes(text: PreTrainedConfig, tokens: int, item: int) -> int:
    """Estimate of the temporary memory of running `tokens` together."""
    return item * tokens * (3 * text.intermediate_size + 8 * text.hidden_size)


def in_groups(
    items: Sequence[Item],
    size: int,
    run: Callable[[Sequence[Item]], list[Result]],
    progress: bool = False,
) -> list[Result]:
    """Run items in groups. If memory runs out, the group is halved and tried again.

    Args:
        items: all items, in order.
        size: initial size of a group; once halved, it stays smaller.
        run: maps a group to one result per item; must leave no state behind when it fails.
        progress: show a bar.

    Raises:
        torch.OutOfMemoryError, MemoryError: one item alone does not fit.
    """
    results: list[Result] = []
    with tqdm(total=len(items), desc="regions", disable=not progress) as bar:
        while len(results) < len(items):
            group = items[len(results) : len(results) + size]
            try:
                results += run(group)
                bar.update(len(group))
                continue
            except (MemoryError, RuntimeError) as error:
                known = isinstance(error, torch.OutOfMemoryError | MemoryError)
                # the CPU allocator has no error type of its own
                if len(group) == 1 or not (known or "can't allocate memory" in str(error)):
                    raise
            # outside the handler: the error held on to the tensors of the group that failed
            size = len(group) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return results


def give_back_freed() -> None:
    """Return freed memory to the system if the C library can (glibc).

    glibc keeps freed blocks below one that is still in use. Large tensors that come and go between
    small ones that stay, as mask tiles do, make a process grow to several times what it holds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
