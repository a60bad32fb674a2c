"""Run-length encodings against pycocotools and against run lengths counted by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from regions.documents import compressed, masks, runs_of

from ureca_lib.regions import (
    MAX_PIXELS,
    AnnotationFormatError,
    EmptyMaskError,
    Region,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.regions.rle import check_rle, check_size, pack_runs, run_lengths

ALPHABET = [chr(code) for code in range(48, 112)]


def read_slowly(counts: str) -> list[int]:
    """COCO's `rleFrString`, number by number, with Python's unbounded integers."""
    runs: list[int] = []
    value, shift = 0, 0
    for char in counts:
        code = ord(char) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    assert shift == 0, "unfinished"
    return runs


def number(value: int, groups: int) -> str:
    """One number in a given number of groups, which may be more than it needs."""
    codes = [(value >> (5 * place)) & 0x1F for place in range(groups)]
    return "".join(chr(48 + code + 32 * (i < groups - 1)) for i, code in enumerate(codes))


def padded(runs: list[int], groups: int = 6) -> str:
    """Every number of an encoding in the same number of groups."""
    return "".join(
        number(run - (runs[i - 2] if i > 2 else 0), groups) for i, run in enumerate(runs)
    )


@settings(deadline=None, max_examples=100)
@given(masks())
def test_run_lengths_are_the_masks(mask):
    counts = compressed(mask)["counts"]
    assert run_lengths(counts).tolist() == runs_of(mask)
    assert run_lengths(counts.encode()).tolist() == runs_of(mask)


@settings(deadline=None, max_examples=100)
@given(masks(14))
def test_packing_writes_what_pycocotools_writes(mask):
    assert pack_runs(np.array(runs_of(mask))).decode() == compressed(mask)["counts"]


def test_packing_writes_what_pycocotools_writes_for_runs_of_every_length():
    generator = np.random.default_rng(0)
    for _ in range(50):
        runs = np.exp(generator.uniform(0, 14, 9)).astype(np.int64)  # 1 to about a million
        rle = coco_mask.frPyObjects({"size": [1, int(runs.sum())], "counts": runs.tolist()}, 1, 1)
        assert pack_runs(runs) == rle["counts"]
        assert run_lengths(rle["counts"]).tolist() == runs.tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 2**29 - 1), min_size=2, max_size=12))
def test_packing_and_reading_are_inverse_up_to_the_largest_size(runs):
    runs = [max(run // len(runs), 1) for run in runs]
    packed = pack_runs(np.array(runs))
    assert run_lengths(packed).tolist() == runs
    assert read_slowly(packed.decode()) == runs


@settings(deadline=None, max_examples=100)
@given(masks())
def test_compressed_uncompressed_and_every_type_of_counts_are_one_mask(mask):
    packed = compressed(mask)
    text, runs = packed["counts"], runs_of(mask)
    as_array = np.array(runs, np.uint32)
    for counts in (text, text.encode(), bytearray(text.encode()), memoryview(text.encode())):
        assert check_rle({"size": mask.shape, "counts": counts}) == (
            {"size": list(mask.shape), "counts": text.encode()},
            mask.sum(),
        )
    for counts in (runs, tuple(runs), as_array, list(as_array)):
        rle, area = check_rle({"size": np.array(mask.shape), "counts": counts})
        assert (rle["counts"].decode(), area) == (text, mask.sum())
        assert all(type(side) is int for side in rle["size"])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 7))
def test_empty_runs_and_padded_numbers_become_the_canonical_encoding(runs, groups):
    total, area = sum(runs), sum(runs[1::2])
    if area == 0:
        return
    inside = np.repeat(np.arange(len(runs)) % 2, runs)
    for counts in (runs, padded(runs, groups)):
        rle, found = check_rle({"size": [1, total], "counts": counts})
        assert found == area
        assert coco_mask.decode(rle)[0].tolist() == inside.tolist()
        assert rle["counts"].decode() == compressed(inside[None])["counts"]


def test_empty_runs_do_not_end_the_comparison_of_two_masks():
    # pycocotools stops where both masks have an empty run at one place
    twice = [Region(i, {"size": [4, 3], "counts": [3, 0, 2, 4, 3]}).rle for i in range(2)]
    assert coco_mask.iou(twice[:1], twice[1:], [0]).tolist() == [[1.0]]
    full = Region(1, {"size": [4, 3], "counts": [4, 8, 0, 0]})
    assert full.pixel_box == (1, 0, 2, 4)


@st.composite
def damaged(draw):
    """An encoding of the right length with one character changed, dropped or added."""
    runs = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8))
    text = list(padded(runs, draw(st.integers(2, 7))))
    place = draw(st.integers(0, len(text) - 1))
    char = draw(st.sampled_from(ALPHABET) | st.characters())
    text[place : place + draw(st.integers(0, 1))] = [char] * draw(st.integers(0, 2))
    return sum(runs), "".join(text)


def assert_refused_or_right(height: int, width: int, counts: str | bytes) -> None:
    """Either a `RegionError`, or the mask that a slow reader finds in the encoding."""
    try:
        rle, area = check_rle({"size": [height, width], "counts": counts})
    except RegionError:
        return
    text = counts if isinstance(counts, str) else counts.decode("ascii")
    runs = read_slowly(text)
    assert min(runs) >= 0 and sum(runs) == height * width and sum(runs[1::2]) == area
    expected = np.repeat(np.arange(len(runs)) % 2, runs)
    assert coco_mask.decode(rle).T.ravel().tolist() == expected.tolist()


@settings(deadline=None, max_examples=100)
@given(damaged())
def test_a_damaged_encoding_is_refused_or_read_right(case):
    total, counts = case
    if total:
        assert_refused_or_right(1, total, counts)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.text(ALPHABET, max_size=8) | st.text(max_size=8) | st.binary(max_size=8),
)
def test_any_text_is_refused_or_read_right(height, width, counts):
    assert_refused_or_right(height, width, counts)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just(10**400)
)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(SCALARS, max_size=3) | SCALARS,
    st.lists(SCALARS, max_size=4) | SCALARS | st.dictionaries(SCALARS, SCALARS, max_size=2),
)
def test_any_json_is_refused_or_read_right(size, counts):
    try:
        rle, area = check_rle({"size": size, "counts": counts})
    except RegionError:
        return
    assert coco_mask.decode(rle).sum() == area and list(size) == rle["size"]


@pytest.mark.parametrize(
    ("counts", "error", "reason"),
    [
        ("", AnnotationFormatError, "empty"),
        (b"", AnnotationFormatError, "empty"),
        ([], AnnotationFormatError, "add up to 0"),
        (np.zeros(0, int), AnnotationFormatError, "add up to 0"),
        ("o", AnnotationFormatError, "breaks off"),
        ("4P", AnnotationFormatError, "breaks off"),
        ("4 8", AnnotationFormatError, "character"),
        ("4p", AnnotationFormatError, "character"),
        ("4\x008", AnnotationFormatError, "character"),
        ("4é", AnnotationFormatError, "character"),
        ("4\ud800", AnnotationFormatError, "character"),
        ("４８", AnnotationFormatError, "character"),  # full-width digits
        (b"4\xff", AnnotationFormatError, "character"),
        ("O", AnnotationFormatError, "negative"),  # -1
        ("4PPPPPPP0", AnnotationFormatError, "too large"),
        ("48\n", AnnotationFormatError, "character"),
        ("43", AnnotationFormatError, "add up to 7 pixels but the size has 12"),
        ("484", AnnotationFormatError, "add up to 16 pixels but the size has 12"),
        ([4, 9], AnnotationFormatError, "add up to 13"),
        ([4, 2**32 + 8], AnnotationFormatError, "too large"),
        ([4, 2**31], AnnotationFormatError, "too large"),
        ([4, 10**30], AnnotationFormatError, "too large"),
        ([-(10**30), 4], AnnotationFormatError, "negative"),
        ([14, -2], AnnotationFormatError, "negative"),
        ([2**32 - 4, 16], AnnotationFormatError, "too large"),  # 12 modulo 2**32
        ([4.0, 8], AnnotationFormatError, "whole numbers"),
        ([4, True, 7], AnnotationFormatError, "whole numbers"),
        ([4, None, 8], AnnotationFormatError, "whole numbers"),
        ([4, "8"], AnnotationFormatError, "whole numbers"),
        ([[4], [8]], AnnotationFormatError, "whole numbers"),
        (np.array([4.0, 8.0]), AnnotationFormatError, "whole numbers"),
        (np.array([[4, 8]]), AnnotationFormatError, "whole numbers"),
        (np.array(12), AnnotationFormatError, "a string or a list"),
        (None, AnnotationFormatError, "a string or a list"),
        (12, AnnotationFormatError, "a string or a list"),
        ({"4": 8}, AnnotationFormatError, "a string or a list"),
        ("<", EmptyMaskError, "no pixels"),
        ([12], EmptyMaskError, "no pixels"),
        ([5, 0, 7], EmptyMaskError, "no pixels"),
    ],
)
def test_bad_counts_have_their_own_error(counts, error, reason):
    with pytest.raises(error, match=reason) as caught:
        check_rle({"size": [4, 3], "counts": counts})
    assert type(caught.value) is error
    with pytest.raises(error, match=f"region 5: .*{reason}"):
        Region(5, {"size": [4, 3], "counts": counts})


@pytest.mark.parametrize(
    ("size", "error", "reason"),
    [
        ([4.0, 3.0], AnnotationFormatError, "two whole numbers"),
        (["4", "3"], AnnotationFormatError, "two whole numbers"),
        ("43", AnnotationFormatError, "two whole numbers"),
        ([4], AnnotationFormatError, "two whole numbers"),
        ([4, 3, 1], AnnotationFormatError, "two whole numbers"),
        ([True, 12], AnnotationFormatError, "two whole numbers"),
        ([None, 3], AnnotationFormatError, "two whole numbers"),
        (12, AnnotationFormatError, "two whole numbers"),
        (None, AnnotationFormatError, "two whole numbers"),
        (np.array(4), AnnotationFormatError, "two whole numbers"),
        ({"0": 4, "1": 3}, AnnotationFormatError, "two whole numbers"),
        ([0, 3], SizeMismatchError, "no pixels"),
        ([-4, -3], SizeMismatchError, "no pixels"),
        (
            [10_000, 20_001],
            AnnotationFormatError,
            "more than the 200,000,000 allowed",
        ),
        ([2**40, 2**40], AnnotationFormatError, "allowed"),
        (np.array([60000, 80000], np.int32), AnnotationFormatError, "4,800,000,000 pixels"),
        (np.array([2**16, 2**16], np.int32), AnnotationFormatError, "4,294,967,296 pixels"),
    ],
)
def test_bad_sizes_have_their_own_error(size, error, reason):
    with pytest.raises(error, match=reason) as caught:
        check_rle({"size": size, "counts": [4, 8]})
    assert type(caught.value) is error
    assert len(str(caught.value)) < 300


def test_a_long_wrong_size_makes_no_long_message():
    with pytest.raises(AnnotationFormatError) as caught:
        check_rle({"size": list(range(100_000)), "counts": "48"})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("rle", [None, "48", ["4", "8"], 5])
def test_an_encoding_is_an_object(rle):
    with pytest.raises(AnnotationFormatError, match="is an object"):
        check_rle(rle)


@pytest.mark.parametrize("key", ["size", "counts"])
def test_a_missing_key_is_named(key):
    rle = {"size": [4, 3], "counts": "48"}
    del rle[key]
    with pytest.raises(AnnotationFormatError, match=f"'{key}'"):
        check_rle(rle)


def test_the_largest_size_is_read():
    rle = {"size": [10_000, 20_000], "counts": [1, MAX_PIXELS - 1]}
    assert check_rle(rle)[1] == MAX_PIXELS - 1


def test_the_images_size_must_be_the_masks():
    with pytest.raises(SizeMismatchError, match="the mask is 3 x 4 but the image is 4 x 3"):
        Region(1, {"size": [4, 3], "counts": "48"}).check_size(height=3, width=4)


def test_check_size_wants_whole_numbers():
    check_size(1, 1)
    for height, width in ((4.0, 3), (4, "3"), (True, 3), (None, 3)):
        with pytest.raises(AnnotationFormatError, match="two whole numbers"):
            check_size(height, width)
    with pytest.raises(AnnotationFormatError, match="4,800,000,000 pixels"):
        check_size(np.int32(60000), np.int32(80000))  # 505,032,704 in 32 bits


@settings(deadline=None, max_examples=60)
@given(masks(), masks())
def test_equal_encodings_mean_equal_masks(one, other):
    first, second = (check_rle(compressed(mask))[0] for mask in (one, other))
    assert (first == second) == (one.shape == other.shape and bool((one == other).all()))


def test_nothing_malformed_reaches_pycocotools(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("pycocotools was called")

    for name in ("decode", "encode", "iou", "merge", "area", "toBbox", "frPyObjects"):
        monkeypatch.setattr(coco_mask, name, refuse)
    text = padded([4, 8])
    pieces = [text[:stop] for stop in range(len(text))]
    for counts in (*pieces, text + "0P", *(a + b for a, b in pairwise(pieces)), [4, -8], [2**40]):
        with pytest.raises(RegionError):
            Region(1, {"size": [4, 3], "counts": counts})
