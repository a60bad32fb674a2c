"""Exports hold captions as people's reviews left them."""

from __future__ import annotations

import json

import pytest

from ureca_lib.annotate.export import export_dataset
from ureca_lib.annotate.reviews import Review
from ureca_lib.annotate.store import Store


@pytest.fixture
def reviewed_store(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"a.json": finals()})
    with Store(path) as store:
        ids = [caption.region_id for caption in store.captions("a.json")][:3]
        accepted, rejected, edited = ids
        for region_id, decision in ((accepted, "accept"), (rejected, "reject")):
            text = f"caption {region_id}"
            store.add_review("a.json", Review(region_id, decision, text, text, "Ada Lovelace"))
        review = Review(edited, "edit", "a better one", f"caption {edited}", "Ada Lovelace")
        store.add_review("a.json", review)
    return path, ids


def test_edits_are_exported_and_what_was_rejected_is_left_out(reviewed_store, tmp_path):
    path, (accepted, rejected, edited) = reviewed_store
    folder = export_dataset(path, tmp_path / "out", progress=False).folder
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    said = {line["mask_id"]: line["conversations"][1]["value"] for line in lines}
    assert said[accepted] == f"caption {accepted}"
    assert said[edited] == "a better one"
    assert rejected not in said
    (left,) = map(json.loads, (folder / "left_out.jsonl").read_text().splitlines())
    assert (left["mask_id"], left["state"]) == (rejected, "dropped")


def test_the_card_counts_reviews_and_no_file_names_the_reviewer(reviewed_store, tmp_path):
    path, _ = reviewed_store
    exported = export_dataset(path, tmp_path / "out", progress=False)
    card = (exported.folder / "README.md").read_text()
    assert "3 captions: 1 accepted, 1 rewritten, 1 rejected" in card
    for name in exported.files:
        assert b"Lovelace" not in (exported.folder / name).read_bytes()


def test_without_reviews_the_card_does_not_speak_of_them(tmp_path, write_store, finals):
    path = write_store(tmp_path, {"a.json": finals()})
    folder = export_dataset(path, tmp_path / "out", progress=False).folder
    assert "reviewed" not in (folder / "README.md").read_text()
