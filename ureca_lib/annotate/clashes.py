"""Captions that are too much alike to tell their regions apart."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ureca_lib.mask_tree import RegionId

Pair = tuple[RegionId, RegionId]


def normalized(caption: str) -> str:
    """The caption's words in lower case, without punctuation and articles."""
    folded = unicodedata.normalize("NFKC", caption).casefold().replace("’", "'")
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", folded)
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def word_overlap(one: str, other: str) -> float:
    """Words and pairs of neighbouring words that two normalised captions share, 0 to 1 of all.

    Pairs are counted because order tells apart: the right leaf of the left flower is not the left
    leaf of the right flower.
    """
    first, second = _pieces(one), _pieces(other)
    union = (first | second).total()
    return (first & second).total() / union if union else 1.0


def _pieces(text: str) -> Counter[str | tuple[str, str]]:
    words = text.split()
    return Counter[str | tuple[str, str]]([*words, *pairwise(words)])


def find_clashes(
    captions: Mapping[RegionId, str],
    look_alikes: Mapping[RegionId, Sequence[RegionId]],
    max_overlap: float = 1.0,
) -> list[Pair]:
    """Pairs of regions of an image whose captions do not tell them apart.

    Two captions that are equal once normalised clash whatever their regions; those of
    look-alikes also where their `word_overlap` is `max_overlap` or more.

    Args:
        captions: for each region its caption; regions without one are left out.
        look_alikes: for each region those it resembles; one direction is enough.
        max_overlap: above 0; 1 is the same text, more than 1 turns it off.

    Returns:
        Each pair once, in the order of `captions`.
    """
    rank = {region_id: place for place, region_id in enumerate(captions)}
    texts = {region_id: normalized(text) for region_id, text in captions.items()}
    same: dict[str, list[RegionId]] = defaultdict(list)
    for region_id, text in texts.items():
        same[text].append(region_id)
    found = {
        (one, other)
        for group in same.values()
        for place, one in enumerate(group)
        for other in group[place + 1 :]
    }
    for one, others in look_alikes.items():
        for other in others:
            if one in texts and other in texts:
                pair = (one, other) if rank[one] < rank[other] else (other, one)
                if pair not in found and word_overlap(texts[one], texts[other]) >= max_overlap:
                    found.add(pair)
    return sorted(found, key=lambda pair: (rank[pair[0]], rank[pair[1]]))


def groups(pairs: Iterable[Pair], order: Sequence[RegionId]) -> list[list[RegionId]]:
    """The connected sets of regions that the pairs form, each and all in the given order."""
    neighbors: dict[RegionId, list[RegionId]] = defaultdict(list)
    for one, other in pairs:
        neighbors[one].append(other)
        neighbors[other].append(one)
    seen: set[RegionId] = set()
    found = []
    for start in order:
        if start in seen or start not in neighbors:
            continue
        seen.add(start)
        members = [start]
        for member in members:  # grows while it is read
            fresh = [other for other in neighbors[member] if other not in seen]
            seen.update(fresh)
            members.extend(fresh)
        inside = set(members)
        found.append([region_id for region_id in order if region_id in inside])
    return found
