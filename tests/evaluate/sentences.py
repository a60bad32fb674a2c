"""Odd sentences with recorded figures, and the peer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ureca_lib.evaluate.ngrams import Pair

# what pycocoevalcap 1.2 gives for these: BLEU-1 to BLEU-4, ROUGE-L, CIDEr
ODD = {
    "punctuation": (
        [
            ("A dog, running.", ["A dog running.", "a dog , running ."]),
            ("two cats - on a mat!", ["Two cats on a mat!"]),
        ],
        (0.666666666593, 0.436435780417, 0.336478173097, 5.96949179084e-05),
        (0.70303030303, 2.15079985246),
    ),
    "many references": (
        [
            (
                "the red cup on the left",
                [
                    f"the {color} cup {place}"
                    for color in ("red", "blue", "big")
                    for place in ("on the left", "left", "")
                ],
            ),
            ("a cup", ["the red cup on the far left of the table near the window", "a cup"]),
            ("the spoon", ["a silver spoon"]),
        ],
        (0.814353676069, 0.794727811865, 0.829855464848, 0.847997323727),
        (0.795358649789, 2.45295126961),
    ),
    "empty and one word": (
        [
            ("", ["a man in a hat"]),
            ("man", ["a man in a hat", "man"]),
            ("a man in a hat", ["", "a man"]),
        ],
        (0.358265655167, 0.253332074225, 2.48407531202e-06, 8.60844805403e-09),
        (0.539763113367, 0.0),
    ),
    "repeated words": (
        [
            ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
            ("a b a b a b a", ["a b a b", "b a b a b"]),
            ("car car", ["car"]),
        ],
        (0.499999999969, 0.392232270249, 0.358703790506, 0.3277456805),
        (0.626825905172, 2.28892750799),
    ),
    "white space": (
        [
            ("a  red\tcar ", [" a red car", "a red  car"]),
            ("一只 黑色 的 狗", ["一只 黑色 的 大 狗", "un chien noir"]),
        ],
        (0.999999999857, 0.894427190847, 0.810960265894, 0.000151967137067),
        (0.685714285714, 4.90880923435),
    ),
}


def peer_pairs(peer: Path, which: str) -> tuple[list[Pair], dict[str, Any]]:
    """The sentences of a peer vector, and the figures expected."""
    expected = json.loads((peer / "metrics" / "expected.json").read_text())[which]
    if which == "single":
        return [(expected["hypothesis"], expected["references"])], expected
    folder = peer / "metrics"
    captions = (folder / expected["hypotheses"]).read_text().splitlines()
    columns = [(folder / name).read_text().splitlines() for name in expected["references"]]
    return list(zip(captions, map(list, zip(*columns, strict=True)), strict=True)), expected
