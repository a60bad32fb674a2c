"""Captions of one photo chosen together: no two regions say the same. Ours, not the paper's.

A captioner that sees one region at a time gives look-alikes the same caption, although each has
others that are nearly as likely. Regions that say the same choose again among their likeliest
captions; what one region alone says stays. All regions of the photo must be given: a caption that
was unique among half of them may be another region's, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

BEAMS = 8  # captions per region to choose from


def normalized(caption: str) -> str:
    """The caption's words in lower case, without punctuation and articles."""
    folded = unicodedata.normalize("NFKC", caption).casefold().replace("’", "'")
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", folded)
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def clashing(captions: Sequence[str]) -> list[int]:
    """Places of captions that say the same as another one; see `normalized`."""
    said = [normalized(text) for text in captions]
    count = Counter(said)
    return [place for place, text in enumerate(said) if count[text] > 1]


def assign(
    captions: Sequence[str], choices: Mapping[int, Sequence[tuple[str, float]]]
) -> dict[int, int]:
    """Choose distinct captions for regions that say the same, and that no other region says.

    As many regions as possible get one; among such choices, the one with the largest sum of
    log-likelihoods (linear assignment).

    Args:
        captions: of all regions.
        choices: by place, captions with their log-likelihoods, for the regions that choose again.

    Returns:
        By place, the number of the choice; without regions whose choices are all taken.
    """
    others = {normalized(text) for place, text in enumerate(captions) if place not in choices}
    likeliest: dict[tuple[int, str], int] = {}  # (place, what it says) -> number of the choice
    for place, pairs in choices.items():
        for number in sorted(range(len(pairs)), key=lambda n: -pairs[n][1]):
            if (text := normalized(pairs[number][0])) not in others:
                likeliest.setdefault((place, text), number)
    if not likeliest:
        return {}
    rows, columns = (list(dict.fromkeys(keys)) for keys in zip(*likeliest, strict=True))
    least = [min((value for _, value in pairs), default=0) for pairs in choices.values()]
    # so low that leaving a region out is worse than anything that the others may choose
    values = np.full((len(rows), len(columns)), sum(least) - 1.0)
    for (place, text), number in likeliest.items():
        values[rows.index(place), columns.index(text)] = choices[place][number][1]
    pairs = zip(*linear_sum_assignment(values, maximize=True), strict=True)
    found = {rows[row]: (rows[row], columns[column]) for row, column in pairs}
    return {place: likeliest[key] for place, key in found.items() if key in likeliest}
