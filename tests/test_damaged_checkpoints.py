"""Damaged checkpoint folders: one kind of error, without long loads or large allocations."""

from __future__ import annotations

import json
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official_writer import official_json, official_tensors, write_checkpoint
from test_checkpoint_tokenizers import write_model
from tiny_models import VISUAL_TOKENS, tiny_config, tiny_model, tiny_tokenizer
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.utils import logging

from ureca_lib.checkpoints import (
    CheckpointError,
    from_internvl_hf,
    load_model_and_processor,
    load_official,
)
from ureca_lib.checkpoints.tensors import INDEX, tensor_index
from ureca_lib.checkpoints.tokenizer import load_tokenizer
from ureca_lib.processor import UrecaProcessor

MUTATIONS_PER_FILE = 6
SECONDS, BYTES = 1.0, 200e6  # limits of a load, in processor time and in memory
VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 2**31, 10**9, 10**18, 0.5, -1e300, "", "x", "../../etc", "7", [], [1],
    [[]], {}, {"x": 1}, [None] * 3,
]  # fmt: skip


def write_ours(folder: Path) -> None:
    model = tiny_model(mask_position="after_image")
    model.save_pretrained(folder, max_shard_size="200KB")
    UrecaProcessor.from_config(model.config, tiny_tokenizer()).save_pretrained(folder)


def write_published(folder: Path) -> None:
    model = tiny_model(tiny_config(mask_projector="linear"))
    write_checkpoint(folder, official_json(model, False), official_tensors(model, False), shards=2)
    tiny_tokenizer().save_pretrained(folder)


def write_internvl(folder: Path) -> None:
    tokenizer = tiny_tokenizer(VISUAL_TOKENS[:3])
    fields = set(InternVLConfig().to_dict()) - {"model_type", "architectures"}
    ours = tiny_config(text={"vocab_size": len(tokenizer)}).to_dict()
    config = InternVLConfig(**{key: value for key, value in ours.items() if key in fields})
    InternVLForConditionalGeneration(config).save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "ours": (write_ours, load_model_and_processor),
    "published": (write_published, load_model_and_processor),
    "internvl": (write_internvl, from_internvl_hf),
    "internlm2": (write_model, load_tokenizer),
}


def places(content: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) of a JSON document."""
    keys = list(content) if isinstance(content, dict) else range(len(content))
    found = [(content, key) for key in keys]
    for key in keys:
        if isinstance(content[key], (dict, list)):
            found += places(content[key])
    return found


def mutate(file: Path, rng: random.Random) -> None:
    """Change a value of a JSON file, or a few bytes of any file."""
    data = bytearray(file.read_bytes())
    if file.suffix == ".json" and rng.random() < 0.75:
        content = json.loads(data)
        # few of a tokenizer's thousands of places are tokens and merges
        groups: dict[int, list[tuple[Any, Any]]] = {}
        for holder, key in places(content):
            groups.setdefault(id(holder), []).append((holder, key))
        holder, key = rng.choice(rng.choice(list(groups.values())))
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = rng.choice(VALUES)
        file.write_text(json.dumps(content))
        return
    place = rng.randrange(len(data))
    if rng.random() < 0.3:
        del data[place:]
    else:
        data[place : place + rng.randrange(4)] = rng.randbytes(rng.randrange(1, 4))
    file.write_bytes(data)


def damage(kind: str, folder: Path, work: Path, seed: int, number: int) -> list[str]:
    """Load mutated copies of a folder; the failures, empty if all is well."""
    read = KINDS[kind][1]
    rng = random.Random(f"{kind} {seed}")
    failures = []
    names = sorted(file.name for file in folder.iterdir())
    for name in (name for name in names for _ in range(number)):
        shutil.copytree(folder, work, dirs_exist_ok=True)
        mutate(work / name, rng)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        outcome = "loaded"
        try:
            read(work)
        except CheckpointError as error:
            outcome = str(error)
            if not outcome.startswith(str(work)) or len(outcome) > 20_000:
                failures.append(f"{name}: {outcome}")
        except BaseException as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
        seconds = time.process_time() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if seconds > SECONDS or grown > BYTES:
            failures.append(f"{name}: {seconds:.1f} s, {grown / 1e6:.0f} MB ({outcome})")
    return failures


@pytest.fixture(autouse=True)
def _quiet():
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(level)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_damaged_is_one_error_that_names_the_file(tmp_path, kind):
    folder = tmp_path / "sound"
    KINDS[kind][0](folder)
    KINDS[kind][1](folder)
    assert damage(kind, folder, tmp_path / "damaged", 0, MUTATIONS_PER_FILE) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.safetensors", "sub/model.safetensors"])
def test_an_index_that_names_files_outside_its_folder_is_refused_unread(
    tmp_path, name, monkeypatch
):
    folder = tmp_path / "published"
    write_published(folder)
    (folder / "sub").mkdir()
    for place in (tmp_path / "outside.safetensors", folder / "sub" / "model.safetensors"):
        shutil.copy(next(folder.glob("model-*.safetensors")), place)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["x"] = name
    (folder / INDEX).write_text(json.dumps(index))
    monkeypatch.setattr("ureca_lib.checkpoints.tensors.safe_open", None)
    for read in (tensor_index, load_official, load_model_and_processor):
        with pytest.raises(CheckpointError, match="outside its folder"):
            if read is load_model_and_processor:
                tiny_tokenizer().save_pretrained(folder)
            read(folder)


def edit(file: Path, *keys: str, value: Any) -> None:
    content = part = json.loads(file.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("kind", "keys", "value"),
    [
        ("ours", ("text_config", "num_hidden_layers"), 10**9),
        ("ours", ("vision_config", "num_hidden_layers"), 10**7),
        ("ours", ("text_config", "vocab_size"), 10**8),
        ("ours", ("num_mask_tokens",), 10**8),
        ("published", ("llm_config", "num_hidden_layers"), 10**9),
        ("published", ("llm_config", "intermediate_size"), 10**8),
        ("internvl", ("text_config", "vocab_size"), 10**8),
    ],
)
def test_sizes_are_compared_with_the_weights_before_they_are_allocated(tmp_path, kind, keys, value):
    KINDS[kind][0](tmp_path)
    edit(tmp_path / "config.json", *keys, value=value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        KINDS[kind][1](tmp_path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES


def test_an_adapter_beside_the_weights_is_not_applied_in_silence(tmp_path):
    write_ours(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: an adapter beside a model"):
        load_model_and_processor(tmp_path)
