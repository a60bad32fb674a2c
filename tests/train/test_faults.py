"""What is wrong with data, weights or settings is said before anything is learnt."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from fake_annotators import write_images
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import SCENES, small, write_base
from typer.testing import CliRunner

from ureca_lib.annotate.export import conversation, write_jsonl
from ureca_lib.cli import app
from ureca_lib.train import loop
from ureca_lib.train.data import open_data
from ureca_lib.train.loop import train_stage
from ureca_lib.train.plan import Plan
from ureca_lib.train.run_folder import keep_best, read_best, read_log

IMAGES = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def published(tmp_path):
    """Photos with masks, and captions of one region each in a JSONL elsewhere."""
    write_images(tmp_path / "sa1b", IMAGES)
    return write_rows(tmp_path / "train.jsonl", {number: "an eye" for number in range(IMAGES)})


def write_rows(path: Path, captions: dict[int, str]) -> Path:
    rows = [
        {"id": f"r{number}", "image": f"image_{number}.png", "mask_id": 1}
        | {"conversations": conversation(text)}
        for number, text in captions.items()
    ]
    write_jsonl(path, rows)
    return path


def settings_of(base, published, **changes):
    given = {"data": f"{published}@{published.parent / 'sa1b'}"}
    given |= {"limit": None, "eval_every": 0, "best_metric": "loss"}
    return small(base, **(given | changes))


def assert_refused(settings, out, match):
    """The plan says so, and so does training, which leaves nothing learnt."""
    with pytest.raises(ValueError, match=match):
        Plan(settings, 1, progress=False)
    with pytest.raises(ValueError, match=match):
        train_stage(settings, out, progress=False)
    assert not list(out.glob("checkpoint-*")) and not (out / "log.jsonl").exists()


def test_a_photo_that_is_gone_is_found_before_the_first_step(base, published, tmp_path):
    (tmp_path / "sa1b" / "image_2.png").unlink()
    assert_refused(settings_of(base, published), tmp_path / "run", "image_2")


def test_a_photo_of_another_size_is_found_before_the_first_step(base, published, tmp_path):
    Image.new("RGB", (20, 30)).save(tmp_path / "sa1b" / "image_1.png")
    assert_refused(settings_of(base, published), tmp_path / "run", "20 x 30")


def test_a_caption_with_a_special_token_is_named_by_image_and_region(base, published, tmp_path):
    write_rows(published, {0: "an eye", 1: "the <mask> of a face", 2: "a door"})
    match = r"image_1: region 1: the answer holds the special token <mask>"
    assert_refused(settings_of(base, published), tmp_path / "run", match)


def test_faults_of_held_out_images_are_found_too(base, published, tmp_path):
    (tmp_path / "sa1b" / "image_2.png").write_bytes(b"no photo")
    settings = settings_of(base, published, eval_every=3, eval_images=1)
    assert_refused(settings, tmp_path / "run", "image_2")


def test_held_out_captions_of_the_same_images_are_refused(base, published, tmp_path):
    test = write_rows(tmp_path / "test.jsonl", {2: "another eye"})
    settings = settings_of(base, published, eval_every=3, eval_data=f"{test}@{tmp_path / 'sa1b'}")
    with pytest.raises(ValueError, match="1 images, such as image_2, are in both"):
        open_data(settings)
    write_rows(published, {0: "an eye", 1: "a door"})
    assert open_data(settings)[1].table["image_id"].to_pylist() == ["image_2"]


def test_a_measure_of_scenes_is_refused_for_other_data(base, published):
    settings = settings_of(base, published, eval_every=3, eval_images=1, best_metric="unique")
    with pytest.raises(ValueError, match="best_metric unique is for scenes"):
        open_data(settings)
    assert len(open_data(small(base, best_metric="unique"))[1])


def refused_plan(folder, match, **changes):
    with pytest.raises(ValueError, match=match):
        Plan(small(folder, **changes), 1, progress=False)


def test_the_plan_says_what_the_start_would_refuse(base, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    assert any("is 64 wide" in note for note in Plan(small(folder), 1, False).notes)
    tensors = load_file(folder / "model.safetensors")
    lost = "model.language_model.layers.0.mlp.down_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != lost}, folder / "model.safetensors")
    refused_plan(folder, rf"missing: {lost}")
    for file in folder.glob("*token*"):
        file.unlink()
    refused_plan(folder, "no tokenizer")


def test_the_plan_knows_that_stage_2_needs_a_mask_encoder():
    tiny_base = SCENES.parent / "tiny_base"
    refused_plan(tiny_base, "no mask encoder: stage 2 starts", stage=2)
    assert Plan(small(tiny_base), 1, progress=False).steps == 6


def test_the_plan_compares_an_internvl_of_transformers_with_its_configuration(tmp_path):
    folder, file = tmp_path / "internvl", "model.safetensors"
    shutil.copytree(SCENES.parent / "tiny_base", folder)
    assert Plan(small(folder), 1, progress=False).steps == 6
    tensors = load_file(folder / file)
    lost = "language_model.model.layers.0.mlp.down_proj.weight"
    del tensors[lost]
    narrow = "multi_modal_projector.linear_1.weight"
    tensors[narrow] = tensors[narrow][:, :-1].contiguous()
    save_file(tensors, folder / file, metadata={"format": "pt"})
    refused_plan(folder, r"layers.0.mlp.down_proj.weight.*\(160, 639\), not \(160, 640\)")


def test_a_run_goes_on_only_from_the_weights_it_began_with(tmp_path):
    base, out = write_base(tmp_path / "base"), tmp_path / "run"
    settings = small(base, steps=2, eval_every=0)
    done = train_stage(settings, out, progress=False)
    assert train_stage(settings, out, progress=False) == done
    write_base(base, num_mask_tokens=4)
    with pytest.raises(ValueError, match=r"started from other weights than .*base has now"):
        train_stage(settings, out, progress=False)


def test_a_run_goes_on_only_with_the_data_it_began_with(base, published, tmp_path):
    rows, out = write_rows(published, {0: "an eye", 1: "a door"}), tmp_path / "run"
    settings = settings_of(base, rows, steps=2, eval_every=0)
    done = train_stage(settings, out, progress=False)
    (out / "result.json").unlink()  # as a run that was killed at its end
    assert train_stage(settings, out, progress=False).samples == done.samples
    (out / "result.json").unlink()
    write_rows(published, {0: "an eye", 1: "a window"})
    with pytest.raises(ValueError, match=r"run on other images, masks or captions than .*train"):
        train_stage(settings, out, progress=False)


def test_a_run_that_goes_on_counts_the_time_of_its_steps_before(base, tmp_path):
    settings, out = small(base, steps=4, save_every=2, eval_every=0, log_every=1), tmp_path / "run"
    train_stage(settings, out, progress=False)
    rows = read_log(out)
    for row in rows:
        row["seconds"] = 1000.0 * row["step"]
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "result.json").unlink()
    shutil.rmtree(out / "checkpoint-4")  # as one that was killed in its third step
    again = train_stage(settings, out, progress=False)
    told = [row["seconds"] for row in read_log(out) if "loss" in row]
    assert told[:2] == [1000, 2000] and 2000 < told[2] < told[3] < again.seconds < 3000


def test_how_a_machine_does_it_may_change_between_parts_of_a_run(base, tmp_path):
    out = tmp_path / "run"
    done = train_stage(small(base, steps=2, eval_every=0), out, progress=False)
    told = json.loads((out / "settings.json").read_text())
    del told["mask_tile_embedding"]  # as an earlier version wrote it, which had no such setting
    (out / "settings.json").write_text(json.dumps(told))
    changes = {"workers": 1, "log_every": 5, "keep_checkpoints": 1}
    again = train_stage(small(base, steps=2, eval_every=0, **changes), out, progress=False)
    assert again == done
    with pytest.raises(ValueError, match=r"other settings \(seed\)"):
        train_stage(small(base, steps=2, eval_every=0, seed=1), out, progress=False)


def test_an_evaluation_that_diverged_is_never_the_best(tmp_path):
    best = []
    for step, loss in enumerate([math.nan, 2.0, math.nan, math.inf, 3.0, 1.0], 1):
        keep_best(tmp_path, "loss", step, {"loss": loss}, {"w": torch.ones(1)})
        best.append((read_best(tmp_path) or {}).get("step"))
    assert best == [None, 2, 2, 2, 2, 6]
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-6.safetensors"]


def test_each_process_computes_on_its_own_gpu(base, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert loop.own_device("cpu") == torch.device("cpu") and not chosen
    devices = [loop.own_device("cuda"), loop.own_device("cuda:1")]
    assert devices == chosen == [torch.device("cuda", 0), torch.device("cuda", 1)]
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda:1 was asked for, and accelerate chose cpu"):
            loop.open_accelerator(small(base), "cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert loop.own_device("cuda") == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{file}"], "File exists"),
        (["--settings", "{folder}"], "directory"),
        (["--device", "cuda"], "no CUDA device here"),
    ],
)
def test_the_command_ends_without_a_traceback(base, tmp_path, words, message):
    if torch.cuda.is_available() and "cuda" in words:
        pytest.skip("there is a CUDA device here")
    (tmp_path / "file").write_text("")
    named = {"file": str(tmp_path / "file"), "folder": str(tmp_path)}
    words = [word.format(**named) for word in words]
    given = ["train", "--data", str(SCENES), "--model", str(base), *words]
    if "--out" not in words:
        given += ["--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 2 and message in done.output and done.exception.code == 2
