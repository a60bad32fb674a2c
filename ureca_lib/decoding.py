"""Greedy captions and log-likelihoods for many regions of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import DynamicCache

from ureca_lib.configuration import CACHE
from ureca_lib.token_tree import TokenTree

TOKENS_A_PASS = 8192  # of prompts that share nothing
_POSITIONS_A_HEAD = 256  # positions whose logits exist at one time; a vocabulary is large


@dataclass(frozen=True)
class Decoded:
    """Generated ids, the one that ended them left out, and the log-probability of them all."""

    ids: list[int]
    log_likelihood: float
    tokens: int  # with the one that ended them


class Rows(Protocol):
    """Sequences that wait for their next token."""

    def first(self) -> torch.Tensor:
        """(R, D) hidden states that predict each sequence's first new token."""

    def step(self, embeds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Append one token to each of `rows`: (A, D) embeddings -> (A, D) hidden states."""


class TreeRows:
    """Sequences that share a long beginning: branches of a tree (see `TokenTree`)."""

    def __init__(self, tree: TokenTree, parent: int, prompts: list[torch.Tensor]):
        """`prompts`: for each of R sequences, (L, D), what follows the shared beginning."""
        self.tree, self.prompts = tree, prompts
        self.branches = tree.sprout(parent, len(prompts))

    def first(self) -> torch.Tensor:
        hidden = self.tree.grow(self.branches, self.prompts)
        return torch.stack([part[-1] for part in hidden])

    def step(self, embeds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        branches = [self.branches[row] for row in rows]
        return torch.cat(self.tree.grow(branches, list(embeds.unsqueeze(1))))


class BatchRows:
    """Sequences of one length that share nothing: an ordinary batch."""

    def __init__(self, language_model: nn.Module, prompts: torch.Tensor):
        """`prompts`: (R, L, D)."""
        self.language_model, self.prompts = language_model, prompts
        self.cache = DynamicCache()
        self.rows = list(range(len(prompts)))

    def first(self) -> torch.Tensor:
        # a few sequences at a time: more would not be faster, and take memory
        hidden, caches = [], []
        for part in self.prompts.split(max(1, TOKENS_A_PASS // self.prompts.shape[1])):
            self.cache = DynamicCache()
            hidden.append(self._run(part))
            caches.append(self.cache)
        self.cache = _joined(caches)
        return torch.cat(hidden)

    def step(self, embeds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        if rows != self.rows:
            # rows that have ended are carried along until they are half: dropping them copies
            if 2 * len(rows) > len(self.rows):
                padded = embeds.new_zeros(len(self.rows), embeds.shape[1])
                places = [self.rows.index(row) for row in rows]
                padded[places] = embeds
                return self._run(padded.unsqueeze(1))[places]
            kept = torch.tensor([self.rows.index(row) for row in rows])  # layers may lie apart
            self.cache.batch_select_indices(kept)
            self.rows = rows
        return self._run(embeds.unsqueeze(1))

    def _run(self, embeds: torch.Tensor) -> torch.Tensor:
        past = {CACHE: self.cache}
        out = self.language_model(inputs_embeds=embeds, use_cache=True, **past)
        return out.last_hidden_state[:, -1]


def _joined(caches: list[DynamicCache]) -> DynamicCache:
    """The caches of parts of a batch as that of the whole."""
    if len(caches) == 1:
        return caches[0]
    whole = DynamicCache()
    for number in range(len(caches[0].layers)):
        layers = [cache.layers[number] for cache in caches]
        keys, values = (torch.cat([getattr(la, n) for la in layers]) for n in ("keys", "values"))
        for layer in layers:
            layer.keys = layer.values = None  # freed layer by layer, or they would be held twice
        whole.update(keys, values, number)
    return whole


def greedy(
    rows: Rows,
    head: nn.Module,
    embedding: nn.Module,
    stops: set[int],
    max_new_tokens: int,
) -> list[Decoded]:
    """The most likely next token, again and again, until each sequence ends.

    Args:
        rows: R sequences.
        head: (A, D) hidden states -> (A, V) logits.
        embedding: (A,) ids -> (A, D).
        stops: ids that end a sequence.
        max_new_tokens: at most so many, the one that ends the sequence included.
    """
    hidden = rows.first()
    active = list(range(len(hidden)))
    ids: list[list[int]] = [[] for _ in active]
    totals, counts = [0.0] * len(active), [0] * len(active)
    for step in range(max_new_tokens):
        logits = head(hidden).float()
        best = logits.argmax(dim=-1)
        gains = torch.log_softmax(logits, dim=-1).gather(1, best[:, None])[:, 0].tolist()
        chosen, going = best.tolist(), []
        for place, (row, token, gain) in enumerate(zip(active, chosen, gains, strict=True)):
            totals[row] += gain
            counts[row] += 1
            if token not in stops:
                ids[row].append(token)
                going.append(place)
        if not going or step + 1 == max_new_tokens:
            break
        active = [active[place] for place in going]
        hidden = rows.step(embedding(best[going]), active)
    return [Decoded(*parts) for parts in zip(ids, totals, counts, strict=True)]


def log_likelihoods(
    tree: TokenTree,
    starts: dict[int, torch.Tensor],
    captions: list[list[int]],
    head: nn.Module,
    embedding: nn.Module,
) -> torch.Tensor:
    """log p(caption | branch), summed over the caption's tokens.

    Args:
        tree: its branches hold what each caption is conditioned on; it is left as it was.
        starts: for each of R branches, the (D,) hidden state of its last token.
        captions: C lists of ids, the one that ends a caption included.
        head: (A, D) hidden states -> (A, V) logits.
        embedding: (A,) ids -> (A, D).

    Returns:
        (R, C) float32, on the CPU.
    """
    mark, targets = tree.mark(), [torch.tensor(ids, device=tree.device) for ids in captions]
    pairs = [(branch, target) for branch in starts for target in targets]
    leaves = [tree.sprout(branch)[0] for branch, _ in pairs]
    grown = tree.grow(leaves, [embedding(target[:-1]) for _, target in pairs])
    tree.cut(mark)
    # what predicts a caption's first token is the branch's last state
    states = [torch.cat([starts[b][None], own]) for (b, _), own in zip(pairs, grown, strict=True)]
    gains = _log_probabilities(torch.cat(states), torch.cat([t for _, t in pairs]), head)
    totals = torch.stack([part.sum() for part in gains.split([len(t) for _, t in pairs])])
    return totals.view(len(starts), len(captions)).cpu()


def _log_probabilities(
    hidden: torch.Tensor, targets: torch.Tensor, head: nn.Module
) -> torch.Tensor:
    """(L, D) hidden states and the (L,) ids that follow them -> (L,) log-probabilities."""
    parts = zip(hidden.split(_POSITIONS_A_HEAD), targets.split(_POSITIONS_A_HEAD), strict=True)
    found = []
    for states, ids in parts:
        logits = head(states).float()  # where the head lies, which may be elsewhere
        chosen = ids[:, None].to(logits.device)
        found.append(torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0])
    return torch.cat(found)
