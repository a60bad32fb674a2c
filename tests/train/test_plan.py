"""The plan before the weights: what it counts is what a run does, and it reads none."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields

import pytest
import safetensors
import torch
from tiny_runs import SCENES, small, write_base
from typer.testing import CliRunner

from ureca_lib.cli import app
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator, open_data
from ureca_lib.train.loop import learning_rates, train_stage
from ureca_lib.train.plan import Plan, launch_command
from ureca_lib.train.settings import TrainSettings, load_settings, parse_override
from ureca_lib.train.stages import StageModel, freeze_for_stage, load_start

BIG = {"data": str(SCENES), "eval_images": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def test_a_run_does_what_was_planned(base, tmp_path):
    settings = small(base, steps=None, epochs=0.2, preset="tiny")
    plan = Plan(settings, processes=1, progress=False)
    result = train_stage(settings, tmp_path / "run", progress=False)
    assert plan.steps == result.steps
    assert plan.groups * 0.2 <= plan.steps * settings.batch_size
    assert sum(plan.trained.values()) == result.trained_parameters
    logged = {row["step"]: row["learning_rate"] for row in result.log if "loss" in row}
    assert [logged[step] for step in sorted(logged)] == pytest.approx(plan.rates)
    assert plan.images == 2 and plan.held_out == 1


@pytest.mark.parametrize("stage", [1, 2])
def test_learnt_numbers_are_those_of_the_real_model(base, stage):
    settings = small(base, stage)
    planned = Plan(settings, 1, progress=False).trained
    model, _ = load_start(settings)
    learner = StageModel(freeze_for_stage(model, settings))
    assert sum(planned.values()) == sum(p.numel() for p in learner.trained().values())


def test_tokens_are_those_of_real_samples(base):
    settings = small(base, regions_per_image=1)
    plan = Plan(settings, processes=1, progress=False)
    _, processor = load_start(settings)
    groups = RegionCaptionDataset(open_data(settings)[0], processor, settings)
    collate = RegionCollator(processor, grouped=False)
    lengths = [collate([groups[i]])["input_ids"].shape[1] for i in range(plan.groups)]
    assert "counted by the tokenizer" in plan.text()
    assert max(lengths) <= plan.longest <= max(lengths) + 10
    mean = plan.image_tokens + plan.mask_tokens + plan.text_tokens
    assert mean == pytest.approx(sum(lengths) / len(lengths), rel=1e-3)


@pytest.mark.parametrize(("stage", "learnt"), [(1, 68_166_296), (2, 335_544_320)])
def test_8b_is_planned_without_weights_or_a_model(stage, learnt):
    plan = Plan(load_settings("8b", stage, BIG), processes=4, progress=False)
    assert sum(plan.trained.values()) == learnt
    assert "2 x 2 x 4" in plan.text()
    assert plan.steps == -(-2 * plan.samples // 16)
    assert 16 * 2**30 < sum(plan.memory.values()) < 40 * 2**30
    # 2 P L operations forward, for the activations' gradient and for checkpointing
    tokens = plan.image_tokens + plan.mask_tokens + plan.text_tokens
    language = 3 * 2 * 7e9 * tokens * 16
    assert language < plan.step_flops < 1.5 * language
    assert plan.hours("A100") == pytest.approx(plan.hours("H100") * 989 / 312)


def test_memory_grows_with_what_is_run_at_once_and_without_checkpointing():
    def samples(**changes):
        settings = load_settings("1b", 1, BIG | changes)
        return Plan(settings, 4, progress=False).memory["samples at once"]

    assert samples(micro_batch=4) == pytest.approx(2 * samples(micro_batch=2), rel=1e-6)
    assert samples(gradient_checkpointing=False) > 2 * samples()


def test_the_learning_rate_rises_and_falls():
    settings = load_settings("8b", 2)
    rates = learning_rates(settings, 1000)
    assert rates[0] == 0 and max(rates) == pytest.approx(4e-5)
    assert rates.index(max(rates)) == 30
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[515] == pytest.approx(2e-5, rel=1e-3)  # half-way down the cosine


def test_no_weights_are_read(base, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", refuse)
    monkeypatch.setattr(safetensors.torch, "load_file", refuse)
    model, _ = load_start(small(base), meta=True)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert any("headers only" in note for note in Plan(small(base), 2, False).notes)


@pytest.mark.parametrize("data", ["ureca_train.jsonl@sa1b", "own.jsonl", "scenes:train:3"])
def test_the_command_that_is_printed_gives_the_same_settings(data):
    changes = {
        "data": data,
        "eval_images": 2,
        "question": "What is it?",
        "resize_share": 0.5,
        "steps": 7,
        "model": "a b",
    }
    settings = load_settings("8b", 2, changes)
    words = shlex.split(launch_command(settings, 4, "out"))
    assert words[: words.index("-m")] == shlex.split(
        "accelerate launch --multi_gpu --num_processes 4 --mixed_precision bf16"
    )
    pairs = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    again = {name: words[words.index(f"--{name}") + 1] for name in ("model", "data")}
    again |= dict(map(parse_override, pairs))
    assert load_settings("8b", 2, again) == settings


def test_what_stands_in_the_way_is_said(base, tmp_path):
    plan = Plan(small(base, preset="tiny"), 1, progress=False)
    assert "note: " in plan.text() and "is 64 wide, preset tiny 160" in plan.text()
    with pytest.raises(ValueError, match=r"none.config\.json: no such file"):
        Plan(small(tmp_path / "none"), 1, progress=False)


def test_photos_that_are_not_there_are_found_before_training(base, tmp_path):
    source = sorted(SCENES.glob("scene_*.json"))[0]
    told = json.loads(source.read_text())
    (tmp_path / source.name).write_text(json.dumps(told))
    settings = small(base, data=str(tmp_path), eval_every=0, limit=None)
    with pytest.raises(ValueError, match=source.stem):
        Plan(settings, 1, progress=False)


def test_the_command_plans_and_names_faults(tmp_path):
    runner = CliRunner()
    words = ["train", "--preset", "8b", "--stage", "1", "--dry-run", "--no-progress"]
    words += ["--data", str(SCENES), "--set", "eval_images=2"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "accelerate launch --multi_gpu --num_processes 4" in done.output
    bad = runner.invoke(app, [*words, "--set", "leraning_rate=1"])
    assert bad.exit_code == 2 and "leraning_rate: Unexpected" in bad.output
    gone = runner.invoke(app, ["train", "--dry-run", "--data", str(tmp_path / "none")])
    assert gone.exit_code == 2 and "no such file or folder" in gone.output
    without = runner.invoke(app, ["train", "--data", str(SCENES)])
    assert without.exit_code == 2 and "--out" in without.output
    told = runner.invoke(app, ["train", "--help-settings"]).output
    assert all(each.name in told for each in fields(TrainSettings))
