"""`ureca caption` and `ureca_lib.caption`: every captioner, every way to name regions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.server import FaultyServer
from matplotlib.text import Text
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tiny_sam import save_sam
from typer.testing import CliRunner

import ureca_lib
from ureca_lib import captioning
from ureca_lib.cli import app
from ureca_lib.datasets import read_jsonl
from ureca_lib.regions import load_sa1b
from ureca_lib.segment import Sam

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"
PHOTOS, SCENE = SAMPLES / "photos", SAMPLES / "scenes" / "scene_1000003.png"


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def coins(tmp_path) -> Path:
    """A sample photo with its masks, in a folder of its own."""
    for name in ("coins.png", "coins.json"):
        shutil.copy(PHOTOS / name, tmp_path)
    return tmp_path / "coins.png"


@pytest.fixture
def own(tmp_path) -> Path:
    """A photo without masks."""
    shutil.copy(PHOTOS / "coffee.png", tmp_path / "own.png")
    return tmp_path / "own.png"


def rows_of(path: Path) -> list[dict]:
    return list(read_jsonl(path))


def texts_of(rows: list[dict]) -> list[str]:
    return [row["conversations"][1]["value"] for row in rows]


def test_caption_uses_the_masks_beside_the_photo(coins, tmp_path):
    result = ureca("caption", coins, "--figure", tmp_path / "figure.png")
    assert result.exit_code == 0, result.output
    rows = list(read_jsonl(tmp_path / "coins.captions.jsonl"))
    regions = load_sa1b(tmp_path / "coins.json")
    assert [row["mask_id"] for row in rows] == [region.id for region in regions]
    texts = [row["conversations"][1]["value"] for row in rows]
    assert len(set(texts)) == len(texts) and all(row["unique"] for row in rows)
    assert Image.open(tmp_path / "figure.png").width > 500
    assert all(text in result.output for text in texts)


def test_a_photo_of_ones_own_is_segmented_and_captioned(tmp_path):
    photo = tmp_path / "own.png"
    shutil.copy(PHOTOS / "coffee.png", photo)
    result = ureca("caption", photo)
    assert result.exit_code == 0, result.output
    rows = list(read_jsonl(tmp_path / "own.captions.jsonl"))
    assert len(rows) >= 12
    assert len({row["conversations"][1]["value"] for row in rows}) == len(rows)


def test_segment_writes_what_caption_reads(tmp_path):
    photo = tmp_path / "own.png"
    shutil.copy(PHOTOS / "chelsea.png", photo)
    assert ureca("segment", photo).exit_code == 0
    regions = load_sa1b(tmp_path / "own.json")
    assert regions.image is not None and len(regions) >= 12
    again = ureca("segment", photo)
    assert again.exit_code == 2 and "exists" in again.output
    assert ureca("caption", photo, "-o", tmp_path / "rows.jsonl").exit_code == 0
    assert len(list(read_jsonl(tmp_path / "rows.jsonl"))) == len(regions)


def test_masks_may_be_a_folder_of_png_files(tmp_path):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "masks").mkdir()
    for number, part in enumerate((slice(0, 10), slice(20, 30))):
        mask = np.zeros((30, 40), np.uint8)
        mask[part, 5:15] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    result = ureca("caption", tmp_path / "photo.png", "--masks", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    assert len(list(read_jsonl(tmp_path / "photo.captions.jsonl"))) == 2


def test_a_bad_mask_is_named_and_can_be_left_out(coins):
    path = coins.with_suffix(".json")
    document = json.loads(path.read_text())
    document["annotations"][3]["segmentation"]["counts"] = "zz"
    bad = document["annotations"][3]["id"]
    path.write_text(json.dumps(document))
    result = ureca("caption", coins)
    assert result.exit_code == 2
    assert f"region {bad}" in result.output and "coins.json" in result.output
    assert "Traceback" not in result.output
    result = ureca("caption", coins, "--no-strict")
    assert result.exit_code == 0 and f"region {bad}" in result.output


@pytest.mark.parametrize("command", ["caption", "segment"])
def test_a_missing_photo_is_one_line_and_status_2(command, tmp_path):
    result = ureca(command, tmp_path / "nothing.jpg")
    assert result.exit_code == 2
    assert "nothing.jpg" in result.output and "Traceback" not in result.output


def test_the_tiny_model_captions_the_region_at_a_point(own, tmp_path):
    out = tmp_path / "out.jsonl"
    result = ureca("caption", own, "--model", "tiny", "--point", "200,200", "-o", out)
    assert result.exit_code == 0, result.output
    (row,) = rows_of(out)
    mask = coco_mask.decode(row["segmentation"])
    assert mask.shape == (400, 600) and mask[200, 200] and texts_of([row])[0]
    assert "URECA tiny on cpu" in result.output and "drawings" in result.output
    assert "unique" not in row and not (tmp_path / "own.captions.jsonl").exists()


def test_the_tiny_model_captions_drawings_as_it_was_measured():
    captions = ureca_lib.caption(SCENE, "tiny")
    truth = {
        r["id"]: r["caption"]
        for r in json.loads(SCENE.with_suffix(".json").read_text())["annotations"]
    }
    right = sum(row.text == truth[row.region_id] for row in captions)
    assert right / len(captions) > 0.7
    assert captions[0].score <= 0 and captions[0].unique is None


def test_on_request_a_model_says_which_other_regions_its_caption_fits():
    captions = ureca_lib.caption(SCENE, "tiny", check=True)
    assert {row.unique for row in captions} <= {True, False}
    same = [row for row in captions if sum(other.text == row.text for other in captions) > 1]
    assert all(row.unique == (not row.confused_with) for row in captions)
    # a text that two regions share can be unique for one of them at most
    for row in same:
        sharing = [other for other in captions if other.text == row.text]
        assert sum(other.unique for other in sharing) <= 1
    assert any(row.look_alikes for row in captions)


def test_regions_that_say_the_same_choose_again(tmp_path):
    whole = ureca_lib.caption(SCENE, "tiny")
    alone = ureca_lib.caption(SCENE, "tiny", together=False)
    changed = [row for row in whole if row.instead_of is not None]
    texts = [row.text for row in alone]
    assert changed and len(set(texts)) < len(texts)
    assert len({row.text for row in whole}) == len(whole)
    for before, after in zip(alone, whole, strict=True):
        assert before.instead_of is None
        assert before.text == (after.instead_of or after.text)
        assert after not in changed or texts.count(before.text) > 1
    row = next(one for one in whole.rows() if "instead_of" in one)
    assert row["instead_of"] == changed[0].instead_of and row["cost"] == round(changed[0].cost, 4)
    assert str(whole).count("[instead of: ") == len(changed)
    words = " ".join(text.get_text() for text in whole.figure(len(whole)).findobj(Text))
    assert words.count("instead of:") == len(changed)
    # a region at a point is captioned with all others if that is asked for
    largest = max(changed, key=lambda row: row.region.area)
    x, y, w, h = largest.region.pixel_box
    words = ("--model", "tiny", "--box", f"{x},{y},{w},{h}", "-o", tmp_path / "out.jsonl")
    for extra, text in (((), largest.instead_of), (("--together",), largest.text)):
        result = ureca("caption", SCENE, *words, *extra)
        assert result.exit_code == 0, result.output
        assert texts_of(rows_of(tmp_path / "out.jsonl")) == [text]
        assert ("1 chosen again" in result.output) == bool(extra)


def test_points_and_boxes_choose_among_the_masks_beside_the_photo(coins):
    regions = load_sa1b(coins.with_suffix(".json"))
    region = regions.regions[5]
    x, y, w, h = region.pixel_box
    words = ("--box", f"{x},{y},{w},{h}", "--point", "1,1")
    result = ureca("caption", coins, *words)
    assert result.exit_code == 0, result.output
    at, boxed = rows_of(coins.with_suffix(".captions.jsonl"))
    assert boxed["mask_id"] == region.id and boxed["unique"] is True
    assert regions[at["mask_id"]].mask[1, 1] and "segmentation" not in at


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--point", "900,20"), "point 900,20 is outside"),
        (("--point", "9"), "takes 2 numbers"),
        (("--box", "0,0,0,9"), "box 0,0,0,9 is empty"),
        (("--box", "a,b,c,d"), "takes 4 numbers"),
        (("--base-url", "http://localhost:1/v1"), "--annotator openai"),
        (("--annotator", "attributes", "--model", "x"), "model"),
        (("--annotator", "parrot"), "parrot"),
        (("--together",), "URECA checkpoint"),
        (("--model", "no/such/folder"), "no/such/folder"),
        (("--sam", "no/such/folder"), "no/such/folder"),
        (("--figure", "out.gif"), "out.gif"),
        (("--output", "."), "is a folder"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(words, reason, own, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = ureca("caption", own, *words)
    assert result.exit_code == 2 and reason in result.output
    assert "Traceback" not in result.output
    assert not own.with_suffix(".captions.jsonl").exists()


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_sam_segments_at_points_and_in_boxes(kind, own, tmp_path):
    folder = save_sam(kind, tmp_path / kind, seed=8)
    out = tmp_path / "out.jsonl"
    words = ("--sam", folder, "--point", "200,200", "--box", "10,10,300,200", "-o", out)
    result = ureca("caption", own, *words)
    assert result.exit_code == 0, result.output
    point, box = rows_of(out)
    pixels = np.asarray(Image.open(own).convert("RGB"))
    assert point["mask_id"] == "point 200,200" and box["mask_id"] == "box 10,10,300,200"
    (expected,) = Sam(folder).at_points(pixels, [(200, 200)])
    assert np.array_equal(coco_mask.decode(point["segmentation"]), expected.mask)


def test_a_region_that_is_compared_with_none_is_not_called_unique(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "even.png")
    captions = ureca_lib.caption(tmp_path / "even.png", points=[(5, 5)], check=True)
    assert [row.unique for row in captions] == [None]
    assert "unique" not in next(iter(captions.rows()))


def test_the_four_stages_caption_one_photo_and_leave_no_store(coins, tmp_path):
    before = set(tmp_path.iterdir())
    result = ureca("caption", coins, "--annotator", "attributes", "--check")
    assert result.exit_code == 0, result.output
    assert set(tmp_path.iterdir()) - before == {tmp_path / "coins.captions.jsonl"}
    rows = rows_of(tmp_path / "coins.captions.jsonl")
    assert len(rows) == 46 and all(row["unique"] for row in rows)
    assert len(set(texts_of(rows))) == 46 and any("look_alikes" in row for row in rows)


def test_a_server_captions_a_photo_and_is_named(own, tmp_path):
    out = tmp_path / "out.jsonl"
    with FaultyServer() as server:
        words = ("--annotator", "openai", "--model", "m", "--base-url", server.url)
        result = ureca("caption", own, *words, "-o", out)
    assert result.exit_code == 0, result.output
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert f"with m at {host}\n" in result.output and len(server.seen) > 20
    rows = rows_of(out)
    # the server says the same of everything, so that no caption is unique
    assert set(texts_of(rows)) == {"a red mug"} and not any(row["unique"] for row in rows)
    assert f"{len(rows)} captions, {len(rows)} not unique" in result.output


def test_a_server_that_is_not_there_is_named(own):
    words = ("--annotator", "openai", "--model", "m", "--base-url", "http://127.0.0.1:9/v1")
    result = ureca("caption", own, *words)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "no captions" in result.output or "127.0.0.1" in result.output


def test_many_photos_go_on_past_a_bad_one(coins, own, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in (coins, coins.with_suffix(".json"), own):
        shutil.copy(file, folder)
    (folder / "broken.jpg").write_text("no photo")
    words = ("-o", tmp_path / "all.jsonl", "--coco", tmp_path / "coco.json")
    result = ureca("caption", folder, *words, "--figure", tmp_path / "figures", "--shown", 4)
    assert result.exit_code == 1 and "broken.jpg" in result.output
    assert "2 of 3 photos" in result.output
    rows = rows_of(tmp_path / "all.jsonl")
    assert [row["image"] for row in rows] == ["coins.png"] * 46 + ["own.png"] * (len(rows) - 46)
    coco = COCO(str(tmp_path / "coco.json"))
    assert [image["file_name"] for image in coco.dataset["images"]] == ["coins.png", "own.png"]
    captions = [annotation["caption"] for annotation in coco.dataset["annotations"]]
    assert captions == texts_of(rows)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"coins.png", "own.png"} <= names


def test_two_photos_of_one_name_and_points_in_many_are_refused(own, tmp_path):
    (tmp_path / "b").mkdir()
    shutil.copy(own, tmp_path / "b")
    result = ureca("caption", own, tmp_path / "b" / "own.png")
    assert result.exit_code == 2 and "same file name" in result.output
    shutil.copy(own, tmp_path / "other.png")
    result = ureca("caption", own, tmp_path / "other.png", "--point", "1,1")
    assert result.exit_code == 2 and "one photo" in result.output
    result = ureca("caption", tmp_path / "b", tmp_path / "nothing")
    assert result.exit_code == 1 and "nothing" in result.output


def test_the_figure_has_the_numbers_of_the_list(own):
    captions = ureca_lib.caption(own)
    figure = captions.figure(most=5)
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    largest = sorted(captions, key=lambda row: -row.region.area)[:5]
    starts = [f"{row.number}. {row.text.split()[0]}" for row in largest]
    assert all(start in words for start in starts)
    listed = str(captions).splitlines()
    assert listed[2] == f"  3  {captions[2].text}"
    assert captions[0].number == 1 and len(listed) == len(captions)


def test_text_of_a_model_cannot_steer_the_terminal(own):
    captions = ureca_lib.caption(own)
    row = captioning.replace(captions[0], text="a\x1b[2Jcup\u202e")
    shown = str(captioning.replace(captions, items=(row,)))
    assert shown == "  1  a\ufffd[2Jcup\ufffd"


def test_arrays_are_captioned_too(own):
    pixels = np.asarray(Image.open(own).convert("RGB"))
    captions = ureca_lib.caption(pixels, boxes=[(0, 0, 600, 400)])
    assert len(captions) == 1 and captions.image == "photo"


def test_the_package_imports_nothing_heavy_and_has_what_users_meet_first():
    script = (
        "import sys, ureca_lib\n"
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy or 'light', ureca_lib.__version__)\n"
        "from ureca_lib import *\n"
        "print(sorted(name for name in dir() if name in ureca_lib.__all__))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    first, second = ended.stdout.splitlines()
    assert first == f"light {ureca_lib.__version__}", ended.stderr
    names = ("load_regions", "build_mask_tree", "annotate_images", "open_captioned")
    names += ("RegionCaptioner", "RegionExplorer", "score_captions", "caption")
    assert all(f"'{name}'" in second for name in names)
    with pytest.raises(AttributeError, match="nothing"):
        _ = ureca_lib.nothing
