"""The benchmarks of Table 6: texts that open them, the protocol, the committed samples."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zero_shot_data import refcocog

from ureca_lib.datasets.captioned import CaptionedError, open_captioned
from ureca_lib.datasets.zero_shot import each_expression, protocol_markdown
from ureca_lib.evaluate.evaluation import evaluate
from ureca_lib.evaluate.metrics import MetricSettings, score_captions
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.systems import build_system
from ureca_lib.evaluate.tables import paper_table, zero_shot_row
from ureca_lib.regions import load_sa1b


def test_texts_open_what_their_folders_hold(samples):
    first, genome = samples / "refcocog", samples / "visual_genome"
    for text, ids in (
        (f"refcocog:umd:val:{first}", ["1", "2", "3"]),
        (f"refcocog:google:train:{first}", ["1", "2", "3", "4", "5"]),
        (f"refcocog:umd:val/multi:{first}", ["1", "2", "3"]),
        (f"visual_genome:test:{genome}", ["1", "2", "3"]),
        (f"visual_genome:val:{genome}", ["4"]),
        (f"visual_genome:test:{genome}/annotations/test.json", ["1", "2", "3"]),
    ):
        found = open_captioned(text)
        assert found.ids == ids and found.counts["photos missing"] == 0
        assert found[0].pixels.shape[:2] == found[0].size
        assert open_captioned(text, limit=1).ids == ids[:1]


def test_photos_may_be_named_in_the_text_or_apart(samples, tmp_path):
    folder = tmp_path / "with:colon"
    folder.mkdir()
    for file in (samples / "refcocog").iterdir():
        (folder / file.name).symlink_to(file)
    text = f"refcocog:umd:val:{folder}"
    assert open_captioned(text)[0].image.photo is None
    photos = samples / "photos"
    assert open_captioned(f"{text}@{photos}")[0].pixels.shape == (512, 512, 3)
    assert open_captioned(text, masks=photos)[0].pixels.shape == (512, 512, 3)


@pytest.mark.parametrize("text", ["refcocog:umd", "refcocog:umd:val", "visual_genome:test"])
def test_other_texts_are_refused(text):
    with pytest.raises(CaptionedError, match=f"is opened as {text.split(':')[0]}:"):
        open_captioned(text)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        open_captioned("coco:val:x")


def test_other_region_sets_are_refused(samples):
    with pytest.raises(CaptionedError, match="a split may have /single or /multi only"):
        open_captioned(f"refcocog:umd:val/many:{samples}")


ids = st.sampled_from("abcd")
texts = st.lists(st.sampled_from(["a red cup", "the cup", "cup on a table", "x"]), max_size=3)


@settings(max_examples=50, deadline=None)
@given(
    references=st.dictionaries(st.sampled_from("abcd"), texts),
    said=st.sets(st.sampled_from("abcd")),
)
def test_each_expression_counts_once(references, said):
    captions, singles = each_expression(dict.fromkeys(said, "a cup"), references)
    assert sorted(text for [text] in singles.values()) == sorted(
        text for listed in references.values() for text in listed
    )
    assert set(captions) == {key for key in singles if key.split("#")[0] in said}
    assert set(captions.values()) <= {"a cup"}


def test_each_expression_alone_scores_no_more_than_the_best():
    references = {"a": ["a red cup", "something else"], "b": ["the saucer", "a round plate"]}
    captions = {"a": "a red cup", "b": "the plate"}
    best = score_captions(captions, references, ("rouge_l",))["rouge_l"].captions.mean()
    alone = score_captions(*each_expression(captions, references), ("rouge_l",))["rouge_l"]
    assert len(alone.captions) == 4
    assert alone.captions.mean() < best


@pytest.mark.parametrize(
    "place", ["refcocog:umd:val/multi:{}/refcocog", "visual_genome:test/multi:{}/visual_genome"]
)
def test_the_name_opens_the_same_images_again(samples, tmp_path, place):
    for text in (place.format(samples), f"{place.format(samples)}@{tmp_path}"):
        found = open_captioned(text)
        assert found.name == text
        assert open_captioned(text, masks=tmp_path).name == f"{place.format(samples)}@{tmp_path}"
        assert open_captioned(found.name).ids == found.ids


def test_predictions_on_both_become_a_row_of_table_6(samples, tmp_path):
    texts = {
        "refcocog": f"refcocog:umd:val:{samples}/refcocog",
        "visual_genome": f"visual_genome:test:{samples}/visual_genome",
    }
    rows = {}
    for name in ("oracle", "shuffled"):
        records = {}
        for key, text in texts.items():
            file, data = tmp_path / f"{key}_{name}.jsonl", open_captioned(text)
            summary = predict(build_system(name), data, file, progress=False)
            assert summary.complete and summary.predictions == data.counts["regions"]
            wanted = MetricSettings()
            records[key] = evaluate(file, None, ("meteor",), wanted).to_dict()
        rows[name] = zero_shot_row(records)
    table = paper_table(6).with_rows(list(rows.values()))
    for key, text in texts.items():
        oracle, shuffled = (rows[name].cells[key]["value"] for name in ("oracle", "shuffled"))
        assert shuffled < 60 < 95 < oracle <= 100
        assert text in table.rows[-1].data
    assert [row.origin for row in table.rows[-3:]] == ["quoted", "measured", "measured"]


def test_the_protocol_is_a_table_in_which_every_choice_has_a_source():
    lines = protocol_markdown().splitlines()
    assert len(lines) == 16 and {line.count("|") for line in lines} == {4}
    assert all(cell.strip() for line in lines for cell in line.split("|")[1:-1])


def test_the_samples_are_what_their_source_gives(root):
    script = root / "data_samples" / "zero_shot.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_samples_say_whose_they_are(samples):
    for name in ("refcocog", "visual_genome"):
        assert "**These are not" in (samples / name / "README.md").read_text()
    about = json.loads((samples / "zero_shot.json").read_text())["about"]
    assert "none of it is from" in about


def test_sentences_of_an_image_differ_and_their_outlines_are_those_of_the_photos(samples):
    for split in ("train", "val", "test"):
        for image in refcocog(samples / "refcocog", split=split):
            texts = [text for listed in image.captions.values() for text in listed]
            assert len(set(texts)) == len(texts)
            drawn = load_sa1b((samples / "photos" / image.image.file_name).with_suffix(".json"))
            for region in image.regions:
                mask = drawn[region.id % 1000].mask
                both = (region.mask & mask).sum() / (region.mask | mask).sum()
                # an outline has no holes, and is not cut by what lies before it
                assert both > 0.4 and region.name == drawn[region.id % 1000].name
