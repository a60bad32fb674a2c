"""InternLM2's tokenizer from a sentencepiece file, against byte-pair encoding by its definition."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.checkpoints import CheckpointError
from ureca_lib.checkpoints.tokenizer import added_tokens, internlm2_tokenizer, load_tokenizer

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
SPACE = "▁"
WORDS = ["in", "the", "re", "gi", "on", "regi", "region", f"{SPACE}t", f"{SPACE}the", "ing", "hin"]
LETTERS = sorted(set("".join(WORDS)) | set("abcdef.,!?\n") | {SPACE})
TURNS = ["<|im_end|>", "<|im_start|>"]


def pieces() -> list[tuple[str, float, int]]:
    """Control pieces, bytes, words by falling score, letters, and two pieces to be renamed."""
    found = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    found += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    found += [(word, -float(i), NORMAL) for i, word in enumerate(WORDS)]
    found += [(letter, -100.0 - i, NORMAL) for i, letter in enumerate(LETTERS)]
    return [*found, ("[UNUSED_TOKEN_0]", 0.0, 5), ("[UNUSED_TOKEN_1]", 0.0, 5)]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def write_model(folder: Path, prefix: bool = False, squeeze: bool = False, kind: int = 2) -> Path:
    """A tokenizer folder as the published 8B checkpoint has it."""
    folder.mkdir(parents=True, exist_ok=True)
    body = b"".join(
        field(1, field(1, text.encode()) + field(2, score) + field(3, which))
        for text, score, which in pieces()
    )
    body += field(2, field(3, kind)) + field(3, field(3, int(prefix)) + field(4, int(squeeze)))
    (folder / "tokenizer.model").write_bytes(body)
    first = len(pieces()) - 2
    visual = ["<img>", "</img>", "<IMG_CONTEXT>", "<MASK_CONTEXT>", "<mask>", "</mask>"]
    decoder = {str(first + i): {"content": token} for i, token in enumerate([*TURNS, *visual])}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": decoder})
    )
    return folder


def by_definition(text: str) -> list[int]:
    """Sentencepiece's rule: join the neighbours that make the best piece, leftmost first."""
    scores = {piece: score for piece, score, kind in pieces() if kind == NORMAL}
    ids = {piece: i for i, (piece, _, _) in enumerate(pieces())}
    parts = list(text.replace(" ", SPACE))
    while True:
        joined = [(scores.get(a + b), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        possible = [(-score, i) for score, i in joined if score is not None]
        if not possible:
            break
        _, i = min(possible)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    out = []
    for part in parts:
        known = [ids[part]] if part in ids else [ids[f"<0x{b:02X}>"] for b in part.encode()]
        out += known
    return out


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_model(tmp_path_factory.mktemp("tokenizer")))


@given(text=st.text(alphabet="".join(LETTERS).replace(SPACE, " ") + "ß你", max_size=30))
@settings(max_examples=150, deadline=None)
def test_ids_are_byte_pair_encoding_by_its_definition(tokenizer, text):
    assert tokenizer(text).input_ids == [1, *by_definition(text)]
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_special_tokens_keep_their_ids_and_split_the_text(tokenizer, tmp_path):
    first = len(pieces()) - 2
    text = "<|im_start|>the region<mask><MASK_CONTEXT></mask>in<|im_end|>"
    expected = [1, first + 1, *by_definition("the region"), first + 6, first + 5, first + 7]
    assert tokenizer(text).input_ids == [*expected, *by_definition("in"), first]
    ids = added_tokens(write_model(tmp_path))
    assert (ids["<IMG_CONTEXT>"], ids["<MASK_CONTEXT>"]) == (first + 4, first + 5)


def test_a_dummy_prefix_and_squeezed_spaces_are_the_files_rules(tmp_path):
    plain = load_tokenizer(write_model(tmp_path / "plain", prefix=True))
    assert plain("the  region").input_ids[1:] == by_definition(" the  region")
    assert plain.decode(plain("the in").input_ids, skip_special_tokens=True) == "the in"
    squeezed = load_tokenizer(write_model(tmp_path / "squeezed", squeeze=True))
    assert squeezed("  the  region \n ").input_ids[1:] == by_definition("the region \n")


def test_saved_and_loaded_again(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    text = "<|im_start|>the region, in ß<|im_end|>"
    assert again(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a model", "not a sentencepiece model"),
        (b"", r"not a sentencepiece model \(no pieces\)"),
        (b"\x0a\xff\xff\xff\x7f", "not a sentencepiece model"),
    ],
)
def test_a_file_that_is_no_model_is_an_error(tmp_path, content, message):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        internlm2_tokenizer(tmp_path, {})
    assert "tokenizer.model" in str(caught.value)


def test_another_kind_of_model_or_a_gap_in_the_ids_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="not a byte-pair model"):
        load_tokenizer(write_model(tmp_path / "unigram", kind=1))
    gap = write_model(tmp_path / "gap")
    (gap / "added_tokens.json").write_text('{"<far>": 9999}')
    with pytest.raises(CheckpointError, match="leave a gap at <far>"):
        load_tokenizer(gap)


def test_a_folder_without_tokenizer_files_has_none(tmp_path):
    assert load_tokenizer(tmp_path) is None
    assert added_tokens(tmp_path) == added_tokens(tmp_path / "nowhere") == {}


def test_a_tokenizer_that_needs_code_is_an_error(tmp_path):
    config = {"tokenizer_class": "NobodysTokenizer", "auto_map": {"AutoTokenizer": ["x.Y", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="NobodysTokenizer, cannot be built without running"):
        load_tokenizer(tmp_path)


def test_a_sentencepiece_model_of_another_tokenizer_is_said_to_be_one(tmp_path):
    folder = write_model(tmp_path / "three")
    config = {"tokenizer_class": "InternLM3Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"InternLM3Tokenizer, .* only InternLM2's is read"):
        load_tokenizer(folder)
