"""Unfinished files of earlier versions are resumed: their rows stay, and only the rest is added."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from ureca_lib.datasets.captioned import CaptionedImage, open_captioned
from ureca_lib.evaluate.clair import Judged
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import meta_path, read_meta, read_predictions
from ureca_lib.evaluate.systems import build_system
from ureca_lib.journal import Journal, read_journal
from ureca_lib.listeners import score_images
from ureca_lib.regions import Region, RegionImage

PREDICTIONS = """\
{"id": "scene_2000000/1", "image_id": "scene_2000000", "region_id": 1, "caption": "the grey sky", \
"references": ["the grey sky"], "score": null, "area": 98771, "image_size": [448, 560], \
"level": 1, "system": "oracle"}
{"id": "scene_2000000/2", "image_id": "scene_2000000", "region_id": 2, \
"caption": "the sun in the grey sky", "references": ["the sun in the grey sky"], "score": null, \
"area": 1626, "image_size": [448, 560], "level": 2, "system": "oracle"}
"""
META = """\
{
 "system": "oracle",
 "model": null,
 "trained_on": "nothing",
 "data": "scenes:test:1",
 "settings": {},
 "seed": null,
 "versions": {
  "python": "3.11.7",
  "ureca-lib": "0.1.0"
 },
 "machine": {
  "platform": "Linux",
  "cores": 2,
  "device": "cpu"
 },
 "commit": "b6a69ff38c949344f504bdcfd57d850c0e5a62ba",
 "command": [
  "ureca",
  "predict"
 ],
 "images": 1,
 "data_settings": {}
}
"""
SCORES = """\
{"image_id": "a", "listener": "fixed", "system": "ours", "size": [60, 80], \
"regions": [{"id": 1, "area": 50, "level": 1, "look_alikes": [2]}, \
{"id": 2, "area": 50, "level": 1, "look_alikes": [1]}], "captions": ["a red cup", "<mask>"], \
"said": [[1, 0], [2, 1]], "scores": [[-0.5, null], [-1.25, null]], \
"unscorable": [[1, "a special token"]]}
"""
JUDGED = """\
{"judge": "scripted:1", "settings": {"temperature": 0.0}, "prompt": "a question", \
"reply": "{\\"score\\": 80}", "problem": null, "score": 80.0, "reason": "because", \
"parsed": "json", "error": null, "prompt_tokens": 5, "reply_tokens": 6, "time": 7.5}
{"judge": "scripted:1", "settings": {"temperature": 0.0}, "prompt": "another", "reply": null, \
"problem": null, "score": null, "reason": null, "parsed": null, "error": "lost", \
"prompt_tokens": 0, "reply_tokens": 0, "time": 8.0}
"""


def test_predictions_are_resumed(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(PREDICTIONS + '{"id": "scene_2000000/3", "ima')
    meta_path(path).write_text(META)
    data = open_captioned("scenes:test:1")
    done = predict(build_system("oracle"), data, path, data_settings={}, progress=False)
    assert path.read_text().startswith(PREDICTIONS)
    rows = read_predictions(path)
    assert [row.region_id for row in rows] == [region.id for region in data[0].regions]
    assert done.made == read_meta(path)["made_in_last_run"] == len(rows) - 2
    assert rows[1].area == 1626 and rows[1].image_size == (448, 560) and rows[1].level == 2


class Photos:
    """Two photos with the same two regions."""

    name, ids = "photos", ("a", "b")

    def __getitem__(self, place):
        masks = np.zeros((2, 60, 80), bool)
        masks[0, 10:15, 10:20] = masks[1, 30:35, 10:20] = True
        regions = [Region.from_mask(number, mask) for number, mask in enumerate(masks, 1)]
        photo = np.full((60, 80, 3), 128, np.uint8)
        return CaptionedImage(self.ids[place], RegionImage(regions, 80, 60, photo))


class FixedListener:
    """Gives the same scores to every image, and counts the images."""

    name = "fixed"

    def __init__(self):
        self.images = []

    def score(self, image, captions):
        self.images.append(image.image_id)
        return np.array([[-0.5, -np.inf], [-1.25, -np.inf]]), {1: "a special token"}


def test_listener_scores_are_resumed(tmp_path):
    path = tmp_path / "heard.jsonl"
    path.write_text(SCORES + SCORES.replace('"a"', '"b"')[:200])
    captions = {"1": "a red cup", "2": "<mask>"}
    listener = FixedListener()
    found = score_images(
        Photos, {"a": captions, "b": captions}, lambda: listener, "fixed", path, "ours", False
    )
    assert listener.images == ["b"]
    assert path.read_text() == SCORES + SCORES.replace('"a"', '"b"')
    assert [one.image_id for one in found] == ["a", "b"]
    assert np.array_equal(found[0].scores, [[-0.5, -np.inf], [-1.25, -np.inf]])
    assert found[0].unscorable == {1: "a special token"} and found[0].size == (60, 80)


def test_a_judge_log_is_resumed(tmp_path):
    path = tmp_path / "clair.jsonl"
    path.write_text(JUDGED + '{"judge": "scripted:1", "sett')
    with Journal(path, lambda row: Judged(**row)) as log:
        assert [entry.score for entry in log.rows] == [80.0, None]
        assert log.rows[0].reply == '{"score": 80}' and log.rows[1].error == "lost"
        added = Judged("scripted:1", {"temperature": 0.0}, "another", "50", score=50.0)
        log.append(asdict(added))
    assert path.read_text().startswith(JUDGED)
    assert [entry.score for entry in list(read_journal(path, Judged.from_row))] == [
        80.0,
        None,
        50.0,
    ]
