"""Both stages in a row, at a few steps, from a base that has learnt nothing."""

from __future__ import annotations

import json
import shlex
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.checkpoints import load_model_and_processor
from ureca_lib.cli import app
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.predictions import read_predictions
from ureca_lib.figures.training import training_figure
from ureca_lib.presets import preset_config
from ureca_lib.train.recipe import (
    compare_results,
    paired_differences,
    publish,
    report_values,
    stage_logs,
    train_recipe,
)
from ureca_lib.train.settings import Recipe, load_settings
from ureca_lib.train.tiny_base.model import as_internvl, new_base, scene_tokenizer

QUICK = {"steps_1": 5, "steps_2": 5, "data": "scenes:train:4"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    as_internvl(new_base(0)).save_pretrained(folder)
    scene_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    recipe = Recipe(base, mask="dynamic", mask_tokens=4, tile_embedding=True, **QUICK)
    return train_recipe(recipe, tmp_path_factory.mktemp("run"), progress=False)


def test_each_stage_changes_its_own_part_and_nothing_else(base, trained):
    first, second = (
        load_model_and_processor(result.model)[0].state_dict()
        for result in trained.numbered.values()
    )
    start = load_file(f"{base}/model.safetensors")
    for name, value in start.items():
        if name in first:
            assert torch.equal(first[name], value), name
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed and all("language_model.layers" in name for name in changed)
    assert {number: each.steps for number, each in trained.numbered.items()} == {1: 5, 2: 5}


def test_a_recipe_that_is_done_is_not_trained_again(trained):
    again = train_recipe(trained.recipe, trained.numbered[1].folder + "/..", progress=False)
    assert again.numbered == trained.numbered


def test_tiles_of_image_and_mask_are_as_many_as_the_recipe_says():
    few = Recipe("base", max_tiles=2).settings(1, "base")
    assert few.max_tiles == few.inference_tiles == 2
    config = few.configure(preset_config("tiny"))
    assert config.max_tiles == config.max_tiles_train == 2
    file = Recipe("base").settings(1, "base")
    assert file.max_tiles == file.inference_tiles == load_settings("tiny", 1, {}).max_tiles


def test_without_masks_all_regions_are_one(base, tmp_path):
    recipe = Recipe(base, mask="none", **QUICK)
    run = train_recipe(recipe, tmp_path, progress=False)
    run.measure("scenes:test:1", tmp_path / "predictions.jsonl", progress=False)
    said = {row.caption for row in read_predictions(tmp_path / "predictions.jsonl")}
    assert len(said) == 1


def test_without_steps_the_base_stays_as_it_is(base, tmp_path):
    recipe = Recipe(base, mask="single", steps_1=0, steps_2=0)
    run = train_recipe(recipe, tmp_path, progress=False)
    assert run.numbered == {} and train_recipe(recipe, tmp_path).model == run.model
    model = load_model_and_processor(run.model)[0]
    assert not model.config.mask_dynamic
    start = load_file(f"{base}/model.safetensors")
    mine = model.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in start.items() if name in mine)


def test_a_published_checkpoint_says_what_was_measured(trained, tmp_path):
    out = tmp_path / "a tiny one"
    report = publish(trained, out, "scenes:test:1", tmp_path)
    stored = load_file(out / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    told = json.loads((out / "results.json").read_text())
    assert told["values"] == json.loads(json.dumps(report_values(report)))
    assert f"{report.overall['unique'].value:.1%}" in (out / "README.md").read_text()
    (line,) = [x for x in (out / "README.md").read_text().splitlines() if "train-recipe" in x]
    _, command, *options = shlex.split(line)  # the card's command makes the same recipe
    with (
        patch("ureca_lib.train.recipe.train_recipe") as train,
        patch("ureca_lib.train.recipe.publish") as made,
    ):
        CliRunner().invoke(app, [command, *options], catch_exceptions=False)
    assert train.call_args.args[0] == trained.recipe
    assert made.call_args.args[1:3] == (out, "scenes:test:1")
    rows = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {1, 2}
    captioner = RegionCaptioner.from_pretrained(out)
    assert captioner.model.dtype == torch.float32


def test_results_stand_beside_each_other_only_if_measured_on_the_same(trained, tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    report = publish(trained, first, "scenes:test:1", tmp_path / "a")
    publish(trained, second, "scenes:test:1", tmp_path / "b")
    table = compare_results({"one": first, "two": second}, "exact_match")
    assert list(table.index) == ["one", "two"]
    assert list(table.columns) == ["steps", "all", *report.by_size]
    assert table.loc["one", "all"] == f"{100 * report.overall['exact_match'].value:.1f}"
    assert table.loc["one", "steps"] == "5 + 5" and (table.iloc[0] == table.iloc[1]).all()
    told = json.loads((second / "results.json").read_text())
    told["report"]["overall"]["unique"] |= {"value": 0.5, "low": 0.25, "high": 0.75}
    (second / "results.json").write_text(json.dumps(told))
    assert compare_results({"two": second}).loc["two", "all"] == "50.0 [25.0, 75.0]"
    (second / "results.json").write_text(json.dumps(told | {"data": "scenes:test:2"}))
    with pytest.raises(ValueError, match=r"two.results\.json: measured on scenes:test:2, "):
        compare_results({"one": first, "two": second})
    (second / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"two.results\.json: not the results of a recipe"):
        compare_results({"two": second})


def test_the_log_of_a_stage_is_what_the_stage_noted(trained, tmp_path):
    publish(trained, tmp_path / "one", "scenes:test:1", tmp_path / "one.work")
    for stage, result in trained.numbered.items():
        (rows,) = stage_logs({"one": tmp_path / "one"}, stage).values()
        assert rows == [{"stage": stage} | row for row in result.log]
    with pytest.raises(ValueError, match=r"training_log\.jsonl: there is no stage 3"):
        stage_logs({"one": tmp_path / "one"}, 3)
    (tmp_path / "one" / "training_log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"training_log\.jsonl: not the log of a recipe"):
        stage_logs({"one": tmp_path / "one"}, 1)


def test_differences_in_pairs_are_those_of_the_command(trained, tmp_path):
    predictions = []
    for name in ("one", "two"):
        publish(trained, tmp_path / name, "scenes:test:2", tmp_path / f"{name}.work")
        (file,) = (tmp_path / f"{name}.work").glob("predictions-*.jsonl")
        predictions.append(file)
    rows = predictions[1].read_text().splitlines(keepends=True)
    scene = open_captioned("scenes:test:1")[0]
    region, texts = next(iter(scene.captions.items()))
    place = next(
        number
        for number, row in enumerate(rows)
        if (told := json.loads(row)).get("image_id") == scene.image_id
        and told.get("region_id") == region
    )
    rows[place] = json.dumps(json.loads(rows[place]) | {"caption": texts[0]}) + "\n"
    predictions[1].write_text("".join(rows))
    out = tmp_path / "two_less_one.json"
    words = ["evaluate", str(predictions[1]), "--metrics", "none", "--compare"]
    done = CliRunner().invoke(app, [*words, str(predictions[0]), "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = paired_differences({"two less one": out}, "exact_match")
    told = json.loads(out.read_text())["comparison"]["differences"]["exact_match"]
    assert told["difference"] > 0
    assert table.loc["two less one", "all"].startswith(f"{100 * told['difference']:+.1f} [")
    assert table.columns[0] == "all" and len(table.columns) > 1
    out.write_text("{}")
    with pytest.raises(ValueError, match=r"two_less_one\.json: not a comparison"):
        paired_differences({"x": out})


def test_the_papers_order_and_smaller_masks_train_both_stages(base, tmp_path):
    changes = {"mask_position": "before_image", "mask_size": 56, "steps_1": 1, "steps_2": 1}
    run = train_recipe(Recipe(base, **(QUICK | changes)), tmp_path, progress=False)
    model, processor = load_model_and_processor(run.model)
    assert (model.config.mask_position, processor.mask_position) == ("before_image",) * 2
    assert model.config.mask_size == processor.mask_size == 56
    assert all(stage.steps == 1 and stage.final["loss"] > 0 for stage in run.numbered.values())
    single = Recipe(base, mask="single", mask_size=28).settings(1, base)
    assert (single.mask_size, single.mask_dynamic) == (28, False)


def test_an_unknown_component_is_refused(base):
    with pytest.raises(ValueError, match="none, single or dynamic"):
        Recipe(base, mask="tiles")


def test_one_square_has_no_tiles_to_tell_apart(base):
    with pytest.raises(ValueError, match="one square has nothing to tell"):
        Recipe(base, mask="single", tile_embedding=True)


def test_the_training_figure_shows_every_run_and_refuses_none(trained):
    logs = {"one": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval_unique": 0.5}]}
    figure = training_figure(logs | {"two": trained.numbered[1].log})
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["one", "two"]
    assert list(left.lines[0].get_ydata()) == [2.0, 1.0]
    assert list(right.lines[0].get_ydata()) == [50]
    assert right.get_xlim() == left.get_xlim()
    assert all(step == int(step) for step in right.get_xticks())
    with pytest.raises(ValueError, match="no logs"):
        training_figure({})
    with pytest.raises(ValueError, match="no loss"):
        training_figure({"empty": [{"step": 1}]})
