"""Sweep files that are broken or too large: refused by name, and quickly."""

from __future__ import annotations

import random
import time

import pytest
from lesson_notebook import write_lesson

from ureca_lib.runs import load_sweep

FILE = """title: "A trial: é"
notebook: lesson.ipynb
parameters: {rate: 3e-4, options: {a: 1}}
grid:
  factor: [1, 2, -3]
  sizes: [[1], [1, 2]]
seeds: [0, 1]
report: [product, size.small]
timeout: 30
"""
# what YAML gives a meaning to, or what Python reads in its own way
PIECES = [
    *"[]{}:,-?&*!|>'\"%@`#\\\n\t\0",
    "- ",
    ": ",
    "&a ",
    "*a",
    "*fixed",
    "<<: ",
    "? ",
    "!!int ",
]
PIECES += ["!!int ", "!!python/object/apply:os.system [touch made]", "!!binary x", "!!set {a}"]
PIECES += ["2020-99-99", "2020-01-01", "0x1F", "1:30", "012", ".nan", "-.inf", "9" * 5000]
PIECES += [
    "!!omap [a]",
    "1e999",
    "~",
    "yes",
    "null",
    '"\\ud800"',
    "\ufeff",
    "\u2028",
    "---\n",
    "...\n",
    "[" * 300,
]
PIECES += [
    "{a: " * 300,
    "seed: 1",
    "output_dir: x",
    "[[1]]",
    "{[1]: 2}",
    "{{}: 1}",
    "!!null x",
    "!!omap [a]",
]


def mutated(rng: random.Random) -> str:
    text = FILE
    for _ in range(rng.randint(1, 4)):
        at, until = sorted(rng.choices(range(len(text) + 1), k=2))
        way = rng.randrange(4)
        if way == 0:  # insert
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif way == 1:  # replace a few characters
            text = text[:at] + rng.choice(PIECES) + text[at + rng.randint(1, 12) :]
        elif way == 2:  # delete
            text = text[:at] + text[min(until, at + 40) :]
        else:  # repeat a part
            text = text[:until] + text[at:until] * rng.randint(1, 3) + text[until:]
    return text


def test_mutated_files_are_read_or_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lesson(tmp_path)
    path, rng = tmp_path / "trial.yaml", random.Random(7)
    refused, slowest = 0, 0.0
    for _ in range(500):
        text = mutated(rng)
        path.write_text(text, encoding="utf-8")
        began = time.process_time()
        try:
            load_sweep(path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and len(str(error)) > len(str(path)) + 5
            refused += 1
        slowest = max(slowest, time.process_time() - began)
    assert 200 < refused < 500
    assert slowest < 2
    assert {item.name for item in tmp_path.iterdir()} == {"lesson.ipynb", "trial.yaml"}


BOMB = "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("title: " + "x" * 70_000, "is larger than 64,000 bytes"),
        ("b0: &b0 [1, 2]\n" + BOMB, "anchors and aliases"),
        ("parameters: &a {options: *a}", "anchors and aliases"),
        ("parameters: {options: *a}", "anchors and aliases"),
        ("a: " + "[" * 10_000, "nested too deeply"),
        (f"grid: {{factor: {[*range(100)]}}}\nseeds: {[*range(100)]}", "10,000 runs are too many"),
        ("grid: {factor: [1], rate: " + str([0.1] * 50) + ", sizes: " + "[[1]]}\nseeds: "
         + str([*range(50)]), "2,500 runs are too many"),
        ("seeds: [012]", "parameter seed: '012' is not of type int"),
        ("parameters: {factor: 1:30}", "parameter factor: '1:30' is not of type int"),
        ("parameters: {factor: " + "9" * 5000 + "}", "is not of type int"),
        ("{}: 1", "unhashable"),
        ('notebook: "\\0"', "no such notebook"),
        ("seeds: !!python/object/apply:os.getcwd []", "seeds: .* at least 1 item"),
    ],
)  # fmt: skip
def test_too_large_and_odd_files_are_refused_at_once(tmp_path, text, reason):
    write_lesson(tmp_path)
    path = tmp_path / "trial.yaml"
    path.write_text(text if "notebook" in text else f"notebook: lesson.ipynb\n{text}\n")
    began = time.process_time()
    with pytest.raises(ValueError, match=rf"trial\.yaml: .*{reason}"):
        load_sweep(path)
    assert time.process_time() - began < 5


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "trial.yaml"
    for content in (b"\xff\xfe\0\0", b"\x80", b"notebook: \x01"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"trial\.yaml: "):
            load_sweep(path)
    with pytest.raises(ValueError, match="Is a directory"):
        load_sweep(tmp_path)
