"""Whole runs of a few steps: what they leave, what they refuse, what does not change the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_runs import SCENES, small, write_base

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.checkpoints import CheckpointError
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.train.data import open_data
from ureca_lib.train.export import load_run, merge_run
from ureca_lib.train.loop import read_result, train_stage
from ureca_lib.train.run_folder import read_log


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def first(base, tmp_path_factory):
    """A run of stage 1."""
    return train_stage(small(base), tmp_path_factory.mktemp("one") / "run", progress=False)


@pytest.fixture(scope="module")
def second(first, tmp_path_factory):
    """A run of stage 2 from it, evaluated but ending with the last weights."""
    settings = small(first.model, 2, keep="last")
    return train_stage(settings, tmp_path_factory.mktemp("two") / "run", progress=False)


def weights(result) -> dict[str, torch.Tensor]:
    return load_file(f"{result.folder}/trained.safetensors")


def test_a_run_learns_logs_and_says_how_it_ended(first):
    rows = [row for row in first.log if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < rows[0]["loss"]
    evaluated = [row["step"] for row in first.log if "eval_loss" in row]
    assert evaluated == [3, 6]
    assert {"exact_match", "unique", "loss"} <= set(first.final)
    assert first.best["step"] == first.kept_step
    assert read_result(first.folder) == first
    assert first.trained_parameters == sum(tensor.numel() for tensor in weights(first).values())


def test_no_pickle_is_left(first, second):
    for result in (first, second):
        kinds = {path.suffix for path in _files(result.folder)}
        assert kinds <= {".json", ".jsonl", ".safetensors", ".md", ".jinja", ".lock", ""}


def _files(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def test_only_the_last_checkpoints_stay(first):
    found = sorted(path.name for path in Path(first.folder).glob("checkpoint-*"))
    assert found == ["checkpoint-4", "checkpoint-6"]
    sizes = sum(path.stat().st_size for path in Path(first.folder, "checkpoint-6").iterdir())
    assert sizes < 5 * 4 * first.trained_parameters  # what learns, two moments, and little else


def test_stage_1_changes_the_mask_encoder_only(base, first):
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (base, first.model))
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing == {name for name in before if "mask_encoder" in name}


def test_stage_2_changes_the_language_models_layers_only(first, second):
    before, after = (load_file(f"{r.model}/model.safetensors") for r in (first, second))
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    adapted = {
        name
        for name in before
        if "language_model" in name and name.split(".")[-2] in kinds and name.endswith("weight")
    }
    assert differing == adapted


def test_a_merged_model_is_the_trained_one_and_reads_back_to_the_bit(second, tmp_path):
    image = open_captioned(SCENES, 3)[2]
    texts = ["a house", "the left door"]

    def scores(model, processor):
        captioner = RegionCaptioner(model, processor)
        return captioner.score(image.pixels, image.regions[:3], texts, progress=False)

    model, processor = load_run(second.folder)
    apart = scores(model.get_base_model(), processor)
    merged = merge_run(second.folder, tmp_path / "merged")
    again = RegionCaptioner.from_pretrained(merged)
    trained = RegionCaptioner.from_pretrained(second.model)
    torch.testing.assert_close(scores(again.model, again.processor), apart, rtol=1e-4, atol=1e-3)
    untrained, _ = load_run(second.folder, "4")
    assert not torch.allclose(scores(untrained.get_base_model(), processor), apart, atol=1e-3)
    one, other = (load_file(f"{f}/model.safetensors") for f in (merged, second.model))
    assert all(torch.equal(one[name], other[name]) for name in one)
    inside = dict(model.merge_and_unload().named_parameters())
    assert all(torch.equal(p, inside[n]) for n, p in trained.model.named_parameters())


def test_a_trained_folder_is_ready_for_a_hub(base, second, tmp_path):
    shutil.copytree(second.model, tmp_path / "alone")
    RegionCaptioner.from_pretrained(tmp_path / "alone")
    card = (tmp_path / "alone" / "README.md").read_text()
    head, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["license"] == "other"
    assert f"exact_match {second.final['exact_match']:.4g}" in text
    assert "| lora_rank | `4` |" in text and "commit " in text
    assert str(tmp_path.parents[1]) not in card  # no folder of this machine
    merged = merge_run(second.folder, tmp_path / "merged", "4")
    assert "| weights | 4 |" in (merged / "README.md").read_text()


def test_merging_what_is_not_there_is_refused(second, tmp_path):
    with pytest.raises(ValueError, match="no training run"):
        merge_run(tmp_path, tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="checkpoint-77"):
        merge_run(second.folder, tmp_path / "x", "77")
    with pytest.raises(ValueError, match="not an empty folder"):
        merge_run(second.folder, second.model)
    with pytest.raises(FileNotFoundError, match="checkpoint-newest"):
        merge_run(second.folder, tmp_path / "x", "newest")


def test_a_run_that_has_ended_is_not_run_again_and_others_are_not_mixed_in(base, first):
    assert train_stage(small(base), first.folder, progress=False) == first
    with pytest.raises(ValueError, match=r"other settings \(seed, steps\)"):
        train_stage(small(base, steps=7, seed=3), first.folder, progress=False)


def test_a_folder_of_something_else_is_left_alone(base, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        train_stage(small(base), tmp_path, progress=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch": 1},  # accumulated
        {"workers": 1},
    ],
)
def test_how_a_step_is_done_does_not_change_what_is_learnt(base, first, tmp_path, changes):
    other = train_stage(small(base, **changes), tmp_path / "run", progress=False)
    for name, tensor in weights(first).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=1e-3, atol=1e-4)


def test_masks_before_the_image_in_bfloat16_with_checkpointing(base, tmp_path):
    changes = {"mask_position": "before_image", "regions_per_image": 1, "precision": "bfloat16"}
    for stage in (1, 2):
        settings = small(base, stage, **changes, gradient_checkpointing=True)
        result = train_stage(settings, tmp_path / str(stage), progress=False)
        rows = [row for row in result.log if "loss" in row]
        assert all(0 < row["loss"] < 20 for row in rows)
        assert rows[-1]["loss"] < rows[0]["loss"]
        stored = load_file(f"{result.model}/model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
        RegionCaptioner.from_pretrained(result.model)


@pytest.mark.parametrize("file", ["optimizer.safetensors", "position.json"])
def test_a_damaged_checkpoint_is_passed_over_and_a_partial_one_removed(base, first, tmp_path, file):
    shutil.copytree(first.folder, tmp_path / "run")
    for name in ("result.json", "trained.safetensors"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / "checkpoint-6" / file).write_bytes(b"cut")
    shutil.copytree(tmp_path / "run" / "checkpoint-4", tmp_path / "run" / ".checkpoint-5")
    again = train_stage(small(base), tmp_path / "run", progress=False)
    assert all(torch.equal(weights(again)[n], t) for n, t in weights(first).items())
    assert [row["step"] for row in again.log if "loss" in row] == [1, 2, 3, 4, 5, 6]
    left = sorted(path.name for path in (tmp_path / "run").glob("*checkpoint-*"))
    assert left == ["checkpoint-4", "checkpoint-6"]


def test_a_line_of_the_log_is_the_same_wherever_the_run_was_interrupted(base, tmp_path):
    changes = {"log_every": 4, "steps": 4, "eval_every": 0, "save_every": 3}
    whole = train_stage(small(base, **changes), tmp_path / "run", progress=False)
    (row,) = whole.log
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    again = train_stage(small(base, **changes), tmp_path / "run", progress=False)
    assert [row | {"seconds": 0} for row in again.log] == [row | {"seconds": 0}]


def test_a_mistyped_model_does_not_lock_the_folder(base, tmp_path):
    with pytest.raises(CheckpointError, match=r"typo.config\.json: no such file"):
        train_stage(small(base / "typo"), tmp_path / "run", progress=False)
    assert train_stage(small(base, steps=1), tmp_path / "run", progress=False).steps == 1


def test_held_out_images_are_never_learnt(base, tmp_path):
    learnt, held_out = open_data(small(base, limit=5, eval_images=2))
    assert (len(learnt), len(held_out)) == (3, 2)
    ids = [index.table["image_id"].to_pylist() for index in (learnt, held_out)]
    assert not set(ids[0]) & set(ids[1])
    with pytest.raises(ValueError, match="in both data and eval_data"):
        open_data(small(base, eval_data=str(SCENES)))
    with pytest.raises(ValueError, match="has 3 images, and eval_images"):
        open_data(small(base, eval_images=3))
    assert open_data(small(base, eval_every=0))[1] is None


def test_the_log_outlives_a_line_cut_off(first, tmp_path):
    lines = [json.dumps({"step": 1, "loss": 2.0}), '{"step": 2, "lo']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}]
