"""The GPU benchmark runs to its end at cut-down shapes, and what it cannot measure it says."""

from __future__ import annotations

import json

import pytest
from benchmarks import gpu


def test_every_part_runs_on_a_cpu_at_small_shapes(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--small", "--device", "cpu", "--presets", "1b", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    rows = {part: [r for r in content["rows"] if r["part"] == part] for part in gpu.PARTS}
    assert all(rows.values())
    assert not any("failed" in row for row in content["rows"])
    assert {row["regions"] for row in rows["decode"]} == {1, 8}
    assert all(row["captions_per_second"] > 0 for row in rows["decode"])
    assert {(row["stage"], row["grouped"]) for row in rows["train"]} == {
        (stage, grouped) for stage in (1, 2) for grouped in (False, True)
    }
    text = gpu.table(content)
    assert "| preset | attention | regions |" in text and "nan" not in text


def test_a_part_that_fails_is_named_and_the_others_run(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no room on the card")

    monkeypatch.setitem(gpu.PARTS, "decode", fails)
    out = tmp_path / "gpu.json"
    options = ["--small", "--device", "cpu", "--parts", "decode,tiles", "--presets", "1b"]
    assert gpu.main([*options, "--out", str(out)]) == 1
    first, second = json.loads(out.read_text())["rows"]
    assert first["failed"] == "RuntimeError: no room on the card"
    assert second["part"] == "tiles" and second["distinct"] < second["tiles"]


def test_a_part_that_was_not_measured_says_so():
    machine = dict.fromkeys(("card", "driver", "torch", "transformers", "commit"))
    assert "**waits**: not measured" in gpu.table({"machine": machine, "rows": []})


@pytest.mark.parametrize("preset", ["1b"])
def test_the_roofline_counts_the_weights_of_the_language_model(preset):
    import torch

    captioner = gpu.captioner_of(preset, torch.device("cpu"), small=True)
    image, _ = gpu.scene(1, small=True)
    language = captioner.model.model.language_model
    weights = sum(p.numel() for p in language.layers.parameters())
    weights += captioner.model.lm_head.weight.numel()
    one, two = (gpu.step_bytes(captioner, image, count, 4) for count in (1, 2))
    assert one > 4 * weights and 0 < two - one < one
