"""METEOR by nltk, with WordNet's synonyms where there is a WordNet.

nltk computes the METEOR of Banerjee and Lavie (2005) with the weights of Lavie and Agarwal (2007)
as the mean over captions; COCO's evaluation runs the Java METEOR 1.5, whose figures are others
(see `meteor_java`). Which one a number is, its label says.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score

from ureca_lib.evaluate.ngrams import Pair
from ureca_lib.evaluate.scores import Measured, mean_tally
from ureca_lib.evaluate.wordnet import Synonyms

_WEIGHTS = {"alpha": 0.9, "beta": 3.0, "gamma": 0.5}  # nltk's defaults


class _Stems:
    """Porter stems, each word stemmed once."""

    def __init__(self) -> None:
        self._stemmer = PorterStemmer()
        self._known: dict[str, str] = {}

    def stem(self, word: str) -> str:
        """The stem of a word."""
        if word not in self._known:
            self._known[word] = self._stemmer.stem(word)
        return self._known[word]


def meteor(pairs: Sequence[Pair], synonyms: Synonyms) -> list[Measured]:
    """Mean METEOR of N captions, each against its best reference.

    Args:
        pairs: captions and their references, tokens between white space.
        synonyms: of WordNet; false leaves them out, and the label says so.
    """
    stems = _Stems()
    scores = np.array(
        [
            meteor_score(
                [reference.split() for reference in references],
                caption.split(),
                stemmer=stems,
                wordnet=synonyms,
                **_WEIGHTS,
            )
            for caption, references in pairs
        ]
    )
    settings = {**_WEIGHTS, "stemmer": "Porter", "synonyms": bool(synonyms)}
    return [
        Measured(
            "meteor",
            "METEOR (nltk)" if synonyms else "METEOR without synonyms (nltk)",
            mean_tally(scores),
            scores,
            "nltk.meteor_score" if synonyms else "nltk.meteor_score_without_synonyms",
            version("nltk"),
            f"WordNet {synonyms.version}".strip() if synonyms else None,
            settings | ({"wordnet": synonyms.source} if synonyms else {}),
        )
    ]
