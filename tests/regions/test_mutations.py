"""Mask files of every format with values damaged at random: read, or refused by one error."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from regions.test_formats import KINDS, write

from ureca_lib.regions import AnnotationFormatError, RegionError, load_regions

TRIALS = 120  # per format
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 10**30),
    *("", "x", "1", "../a", "\ud800", [], [[]], {}, {"a": 1}, [1, 2], [[1, 2, 3]], [["a"]], [None]),
    *({"counts": "abc", "size": [64, 96]}, {"counts": [1, 2], "size": [10**9, 10**9]}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values within a JSON value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


def mutated_json(text: str, rng: random.Random) -> str:
    document = copy.deepcopy(json.loads(text))
    for _ in range(rng.choice((1, 1, 2)) if document else 0):
        *way, last = rng.choice(list(places(document)))
        holder = document
        for key in way:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(rng.choice(ODD))
    return json.dumps(document)


def mutated_xml(text: str, rng: random.Random) -> str:
    values = list(re.finditer(r'"[^"]*"', text))
    chosen = rng.choice(values)
    odd = rng.choice(("-1", "", "x", "1e9", "nan", "1;2", "1,2,3", "99999999999", "0, 5"))
    return text[: chosen.start()] + f'"{odd}"' + text[chosen.end() :]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data[: rng.choice((len(data), rng.randrange(len(data))))] or b"x")
    for _ in range(rng.randrange(1, 6)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    whole = path.read_bytes()
    rng = random.Random(kind)
    for _ in range(TRIALS):
        if path.suffix == ".json":
            path.write_text(mutated_json(whole.decode(), rng))
        elif path.suffix == ".xml":
            path.write_text(mutated_xml(whole.decode(), rng))
        else:
            path.write_bytes(mutated_bytes(whole, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                regions = load_regions(path, tmp_path / "p.png", rng.random() < 0.5, boxes=True)
            except RegionError as error:
                assert path.name in str(error) or "p.png" in str(error)
            else:
                assert all(region.mask.any() for region in regions)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", [(10**9, 10**9), (100, 40_000, 40_000)])
def test_arrays_that_claim_a_huge_size_are_refused(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    head = io.BytesIO()
    claimed = {"descr": "|b1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, claimed)
    path = tmp_path / f"m{suffix}"
    if suffix == ".npy":
        path.write_bytes(head.getvalue() + bytes(100))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", head.getvalue() + bytes(100))
    with pytest.raises(AnnotationFormatError, match="holds no arrays"):
        load_regions(path)
