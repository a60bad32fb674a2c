"""Settings: their files, overrides, and what is refused."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from ureca_lib.options import help_of
from ureca_lib.presets import PRESETS, preset_config
from ureca_lib.train.settings import (
    FOLDER,
    BaseSettings,
    Recipe,
    TrainSettings,
    checked,
    load_settings,
    parse_override,
)

FILES = sorted(FOLDER.glob("*.toml"))


def test_there_is_a_file_for_each_preset_and_stage():
    stems = {f"{preset}_stage{stage}" for preset in PRESETS for stage in (1, 2)}
    assert {path.stem for path in FILES} == stems


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_is_for_and_fits_its_model(path):
    preset, stage = path.stem.split("_stage")
    settings = load_settings(preset, int(stage))
    written = tomllib.loads(path.read_text())
    assert (written["preset"], written["stage"]) == (preset, int(stage))
    assert all(getattr(settings, name) == value for name, value in written.items())
    config = settings.configure(preset_config(preset))
    assert config.max_tiles_train == 6
    if stage == "2":
        assert settings.lora_rank == PRESETS[preset].lora_rank
        assert settings.lora_alpha in (None, PRESETS[preset].lora_alpha)


@pytest.mark.parametrize("preset", ["1b", "2b", "4b", "8b"])
def test_the_papers_numbers_at_its_sizes(preset):
    one, two = load_settings(preset, 1), load_settings(preset, 2)
    assert (one.learning_rate, two.learning_rate) == (2e-4, 4e-5)
    for settings in (one, two):
        assert (settings.epochs, settings.batch_size, settings.steps) == (2, 16, None)
        assert (settings.warmup, settings.weight_decay) == (0.03, 0.01)
        assert (settings.scheduler, settings.precision) == ("cosine", "bfloat16")
        assert settings.lora_dropout == 0.05
        assert settings.accumulation(4)[0] * settings.accumulation(4)[1] * 4 == 16


def test_every_setting_says_what_it_is():
    for settings in (TrainSettings, Recipe, BaseSettings):
        assert list(help_of(settings)) == [each.name for each in dataclasses.fields(settings)]
    help_text = help_of(TrainSettings)["precision"]
    assert help_text.startswith("of frozen") and help_text.endswith("does so itself")


def test_overrides_take_the_place_of_a_file_and_a_file_of_the_presets(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('learning_rate = 1e-3\nsteps = 7\npreset = "8b"\n')
    overrides = dict(map(parse_override, ["steps=9", "data=some where.jsonl", "limit=none"]))
    settings = load_settings("8b", 1, overrides, own)
    assert (settings.learning_rate, settings.steps) == (1e-3, 9)
    assert (settings.data, settings.limit) == ("some where.jsonl", None)
    assert settings.weight_decay == 0.01


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps=3", 3),
        ("steps=None", None),
        ("learning_rate=2e-3", 2e-3),
        ("no_mask=true", True),
        ("question=x=y", "x=y"),
        ("data=scenes:train:3", "scenes:train:3"),
    ],
)
def test_values_from_a_command_line(text, value):
    name, given = parse_override(text)
    assert getattr(load_settings(overrides={name: given}), name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1.0}, "learning_rat: Unexpected"),
        ({"steps": "many"}, "steps: .*integer"),
        ({"stage": 3}, "stage: "),
        ({"batch_size": 0}, "batch_size: .* greater than 0"),
        ({"warmup": 2.0}, "warmup: .* less than or equal to 1"),
        ({"cache": "x"}, "cache: Unexpected"),
        ({"regions_per_image": 2}, "gradient_checkpointing = false"),
        ({"max_grad_norm": 0.0}, "max_grad_norm: .* greater than 0"),
    ],
)
def test_bad_settings_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        checked(values, "given")


def test_a_setting_is_read_by_its_earlier_name():
    assert checked({"blind": True}, "given").no_mask


def test_a_batch_that_cannot_be_shared_out_is_refused():
    settings = checked({"batch_size": 12, "micro_batch": 4}, "given")
    assert settings.accumulation(1) == (4, 3)
    assert settings.accumulation(3) == (4, 1)
    with pytest.raises(ValueError, match="not 5 equal shares"):
        settings.accumulation(5)
    with pytest.raises(ValueError, match=r"micro_batch 4 does not divide .* 6 images"):
        settings.accumulation(2)


def test_files_at_fault_are_named(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(ValueError, match=r"bad\.toml: not TOML"):
        load_settings("tiny", 1, file=bad)
    bad.write_text("stage = 2")
    with pytest.raises(ValueError, match=r"bad\.toml: for preset tiny, stage 2, not"):
        load_settings("tiny", 1, file=bad)
    with pytest.raises(ValueError, match=r"3b_stage1: choose from .*tiny_stage1"):
        load_settings("3b", 1)
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        load_settings("tiny", 1, file=tmp_path / "none.toml")


def test_data_of_ones_own_is_not_judged_on_scenes():
    assert load_settings("tiny", 1).eval_data == "scenes:validation:100"
    assert load_settings("tiny", 1, {"data": "scenes:train:8"}).eval_data is not None
    assert load_settings("tiny", 1, {"data": "mine.jsonl"}).eval_data is None
    named = load_settings("tiny", 1, {"data": "mine.jsonl", "eval_data": "test.jsonl"})
    assert named.eval_data == "test.jsonl"
