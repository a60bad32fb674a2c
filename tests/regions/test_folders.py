"""Which files of a folder are annotations, links among them."""

from __future__ import annotations

from pathlib import Path

from ureca_lib.regions.sa1b import annotation_files, walk_linked


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_linked_folders_are_followed_last_and_each_once(tmp_path):
    root, disk = tmp_path / "sa1b", tmp_path / "disk"
    touch(root / "b" / "sa_2.json", disk / "sa_3.json", disk / "more" / "sa_4.json")
    (root / "a").symlink_to(disk)
    (root / "c").symlink_to(disk / "more")  # inside of a
    (root / "b" / "back").symlink_to(root)
    (disk / "loop").symlink_to(disk)
    (root / "nowhere").symlink_to(tmp_path / "gone")
    names = ["a/more/sa_4.json", "a/sa_3.json", "b/sa_2.json"]
    assert annotation_files(root) == [root / name for name in names]
    assert [place for place, _ in walk_linked(root)][:2] == [root, root / "b"]


def test_hidden_files_and_what_belongs_to_a_jsonl_are_left_out(tmp_path):
    touch(*(tmp_path / name for name in ("sa_1.json", ".x.json", "P.jsonl", "P.meta.json")))
    touch(*(tmp_path / name for name in ("P.scores.json", "Q.meta.json", "P.json", "notes.txt")))
    found = annotation_files(tmp_path)
    assert [path.name for path in found] == ["P.json", "Q.meta.json", "sa_1.json"]
