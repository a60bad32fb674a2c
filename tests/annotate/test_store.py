"""The store keeps what was committed, tells ids apart, and lends an image to one process."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ureca_lib.annotate.records import Answer, FinalCaption, ImageRow, Step, digest, masks_digest
from ureca_lib.annotate.reviews import Review
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.regions import Region

STORE_V3 = Path(__file__).parent / "data" / "store_v3.db"  # made by a version before checksums


def row(image: str, status: str = "done", **changes: object) -> ImageRow:
    values = dict(
        split="train", error=None, path="p.json", photo="p.png", width=4, height=3, left_out=()
    )
    return ImageRow(image=image, status=status, **(values | {"inputs": "abc"} | changes))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.db") as opened:
        opened.register([("a", "train"), ("b", "test")])
        yield opened


def answer(stage, number, region_id, text="text", status="done", **changes) -> Answer:
    return Answer(Step(stage, number, region_id), text, status, **changes)


def test_answers_come_back_as_they_were_saved(store):
    full = Answer(
        Step("unique", 2, "seven"), "a “text”\nof two lines", "done", None, "openai:x", "unique/1",
        "hash", 0.25, 100, 20, 3, False,
    )  # fmt: skip
    saved = [full, answer("short", 0, 7, unique=True), answer("short", 0, "7", unique=None)]
    for one in saved:
        store.save("a", one)
    assert store.answers("a") == {one.step: one for one in saved}
    assert store.answers("b") == {}


def test_a_step_has_one_answer(store):
    store.save("a", answer("long", 0, 1, "", "failed", error="timeout"))
    store.save("a", answer("long", 0, 1, "better"))
    assert [one.text for one in store.answers("a").values()] == ["better"]


def test_answers_outlive_the_connection_without_closing(store):
    store.save("a", answer("short", 0, 1))
    with Store(store.path) as second:
        assert list(second.answers("a")) == [Step("short", 0, 1)]


def test_finishing_keeps_what_counts_and_deletes_the_rest(store):
    kept, stale = answer("short", 0, 1), answer("unique", 3, 1)
    for one in (kept, stale, answer("short", 0, "1")):
        store.save("a", one)
    unasked = [answer("unique", 1, 1, "text", "kept"), answer("long", 0, 2, "", "blocked")]
    captions = [
        FinalCaption(2, "", "failed", "short: timeout", None, 0, None, 1, 2, ()),
        FinalCaption("1", "text", "unique", None, "long", 0, 2, 2, 1, (2, "2")),
    ]
    store.finish(row("a"), [kept, *unasked], captions)
    assert store.answers("a") == {one.step: one for one in (kept, *unasked)}
    assert store.captions("a") == captions
    assert store.image("a") == row("a")
    assert store.image("b").status == "waiting"


def test_an_image_that_failed_keeps_its_answers_but_no_captions(store):
    store.save("a", answer("short", 0, 1))
    store.finish(row("a"), [answer("short", 0, 1)], [FinalCaption(1, "x", "unique")])
    store.finish(row("a", "failed", error="a.json: truncated", left_out=("annotation 3: bad",)))
    assert store.image("a").error == "a.json: truncated"
    assert store.image("a").left_out == ("annotation 3: bad",)
    assert store.answers("a") and store.captions("a") == []


def test_registering_again_keeps_the_state_and_the_order(store):
    store.finish(row("a"))
    store.register([("c", "train"), ("a", "test"), ("b", "test")])
    assert [(one.image, one.split, one.status) for one in store.images()] == [
        ("a", "test", "done"),
        ("b", "test", "waiting"),
        ("c", "train", "waiting"),
    ]
    with pytest.raises(KeyError, match="'d'"):
        store.image("d")


def test_threads_share_a_store(store):
    def save(part: int) -> None:
        for number in range(50):
            store.save("a", answer("short", 0, 100 * part + number))

    threads = [threading.Thread(target=save, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.answers("a")) == 400


def test_an_image_is_lent_once_and_again_when_given_back(store):
    with Store(store.path) as other:
        assert store.claim("a") and store.claim("a")
        assert not other.claim("a")
        assert other.claim("b")
        store.release("a")
        assert other.claim("a")
        assert not store.claim("a")
    assert store.claim("a")  # closing gives everything back


def test_a_finished_image_is_given_back(store):
    assert store.claim("a")
    store.finish(row("a"))
    with Store(store.path) as other:
        assert other.claim("a")


@pytest.mark.parametrize("status", ["done", "partial"])
def test_a_finished_image_is_so_until_there_is_a_new_answer(store, status):
    finished = row("a", status, error="1 answer failed" if status == "partial" else None)
    store.finish(finished, [], [FinalCaption(1, "x", "unique")])
    assert store.claim("a")
    store.release("a")
    assert store.image("a") == finished
    assert store.claim("a")
    store.save("a", answer("short", 0, 1))
    store.release("a")
    assert (store.image("a").status, store.image("a").error) == ("waiting", None)


def test_an_answer_that_fails_again_leaves_its_image_finished(store):
    failed = answer("short", 0, 1, "", "failed", error="status 500")
    store.save("a", failed)
    finished = row("a", "partial", error="1 answer failed")
    store.finish(finished, [failed], [FinalCaption(1, "", "failed")])
    store.save("a", answer("short", 0, 1, "", "failed", error="status 503"))
    assert store.image("a") == finished
    store.save("a", answer("short", 0, 2, "", "failed", error="status 503"))
    assert store.image("a").status == "waiting"


def test_an_image_that_failed_waits_once_it_is_looked_at_again(store):
    store.finish(row("a", "failed", error="a.json: truncated"))
    assert store.claim("a")
    assert (store.image("a").status, store.image("a").error) == ("waiting", None)


def test_a_killed_process_holds_nothing(store):
    code = (
        "import sys, time; from ureca_lib.annotate.store import Store\n"
        "store = Store(sys.argv[1]); print(store.claim('a'), flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, store.path], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"True\n"
    assert not store.claim("a")
    child.kill()
    child.wait()
    child.stdout.close()
    assert store.claim("a")


def test_images_that_are_given_back_leave_no_lock_behind(store):
    for image in "ab":
        assert store.claim(image)
    folder = store.path.with_name("s.db.workers")
    assert len(list(folder.iterdir())) == 2
    store.finish(row("a"))
    store.close()
    assert not list(folder.iterdir())


def test_an_image_is_held_by_another_process_only(store):
    assert store.claim("a")
    with Store(store.path) as other:
        assert other.is_held("a") and not store.is_held("a") and not other.is_held("b")
        assert store.claim("b")


def test_threads_that_claim_one_image_get_it_once(store):
    """However often it is given back meanwhile, no two have it at a time."""
    holders, most, lock = [0], [0], threading.Lock()

    def work():
        with Store(store.path) as own:
            for _ in range(60):
                if own.claim("a"):
                    with lock:
                        holders[0] += 1
                        most[0] = max(most[0], holders[0])
                    with lock:
                        holders[0] -= 1
                    own.release("a")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_settings_are_those_of_the_latest_run(store):
    store.begin_run({"rounds": 3, "views": {"margin": 0.1}})
    store.begin_run({"rounds": 1})
    assert store.settings() == {"rounds": 1}


def test_a_file_that_is_no_store_is_named(tmp_path):
    wrong = tmp_path / "photo.db"
    wrong.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"photo\.db.*not a database"):
        Store(wrong)
    with pytest.raises(StoreError, match="there is no store"):
        Store(tmp_path / "none.db", create=False)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE songs (title TEXT)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match=r"other\.db: not a store of version 4"):
        Store(tmp_path / "other.db")


def as_version(version: int, folder: Path) -> Path:
    """The store of version 3, with what came in version 2 and 3 taken out again."""
    path = folder / f"version_{version}.db"
    shutil.copy(STORE_V3, path)
    with sqlite3.connect(path) as connection:
        if version < 3:
            for column in ("masks", "made_with"):
                connection.execute(f"ALTER TABLE images DROP COLUMN {column}")
            connection.execute("DROP TABLE made_with")
        if version < 2:
            connection.execute("DROP TABLE reviews")
        connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_store_is_upgraded_and_loses_nothing(tmp_path, version):
    path, name = as_version(version, tmp_path), "photos/image_0.json"
    columns = "region, text, state, reason, stage, round, parent, depth, height, look_alikes"
    with sqlite3.connect(path) as connection:
        query = f"SELECT {columns} FROM captions WHERE image=? ORDER BY place"
        before = connection.execute(query, (name,)).fetchall()
        answers = connection.execute("SELECT count(*) FROM answers").fetchall()
    for _ in range(2):  # the upgrade, and what it made of it
        with Store(path, create=False) as store:
            assert store.recipe == 1
            assert store.rows("SELECT count(*) FROM answers") == answers
            assert sum(len(store.answers(image.image)) for image in store.images()) == 82
            found = store.captions(name)
            assert [(json.dumps(c.region_id), c.text, c.state) for c in found] == [
                row[:3] for row in before
            ]
            image = store.image(name)
            assert (image.masks is None) == (image.made_with is None) == (version < 3)
            edited = store.reviewed_captions(name)[0]
            assert (edited.text == "a caption of a person") == (version > 1)
    with Store(path) as store:
        last = found[-1]
        review = store.add_review(name, Review(last.region_id, "accept", last.text, last.text, "x"))
        assert store.reviews(name)[-1] == review
        store.finish(replace(image, masks="abc", made_with="def"), store.answers(name).values(), [])
        assert store.image(name) == replace(image, masks="abc", made_with="def")
        store.begin_run({"rounds": 3}, {"def": {"rounds": 1}})
        assert (store.settings(), store.settings("def")) == ({"rounds": 3}, {"rounds": 1})


def contents(path: Path) -> list:
    """Everything of a store that a data set is made of."""
    with Store(path, create=False) as store:
        return [
            (
                image,
                store.answers(image.image),
                store.captions(image.image),
                store.reviews(image.image),
            )
            for image in store.images()
        ]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_are_named_or_change_nothing(tmp_path, seed):
    """A bit flipped anywhere in the file: the same contents, or an error that names the file."""
    chance, path, damaged = random.Random(seed), tmp_path / "s.db", 0
    shutil.copy(STORE_V3, path)
    whole = contents(path)  # upgraded
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    good = path.read_bytes()
    texts = [place for place in range(len(good)) if good[place : place + 7] == b"caption"]
    for trial in range(120):
        place = chance.choice(texts) if trial % 4 == 0 else chance.randrange(len(good))
        bad = bytearray(good)
        for _ in range(chance.choice([1, 1, 3])):
            bad[min(place, len(bad) - 1)] ^= 1 << chance.randrange(8)
            place += 1
        path.write_bytes(bad)
        try:
            assert contents(path) == whole, (seed, trial, place)
        except StoreError as error:
            damaged += 1
            assert "s.db" in str(error)
        for rest in tmp_path.glob("s.db-*"):
            rest.unlink()
    assert damaged > 30


def test_a_damaged_caption_is_named(store):
    store.save("a", answer("short", 0, 1))
    store.finish(row("a"), [answer("short", 0, 1)], [FinalCaption(1, "x", "unique")])
    store.add_review("a", Review(1, "edit", "y", "x", "reviewer"))
    changes = {
        "answers": ("UPDATE answers SET text='other'", lambda s: s.answers("a")),
        "captions": ("UPDATE captions SET text='other'", lambda s: s.captions("a")),
        "reviews": ("UPDATE reviews SET text='other'", lambda s: s.reviewed_captions("a")),
        "it has 0 captions, not 1": ("DELETE FROM captions", lambda s: s.captions("a")),
        "it has 0 answers, not 1": ("DELETE FROM answers", lambda s: s.answers("a")),
        "it has 0 reviews, not 1": ("DELETE FROM reviews", lambda s: s.reviews("a")),
        "the record of the image a": ("UPDATE images SET split='test'", lambda s: s.images()),
        "its settings": ("INSERT INTO settings VALUES ('x', '{')", lambda s: s.settings()),
        "the recipe of its keys": ("UPDATE recipe SET version=7", lambda s: None),
    }
    for part, (change, read) in changes.items():
        shutil.copy(store.path, store.path.with_name("copy.db"))
        shutil.copy(store.path.with_name("s.db-wal"), store.path.with_name("copy.db-wal"))
        with sqlite3.connect(store.path.with_name("copy.db")) as connection:
            connection.execute(change)
        connection.close()
        with (
            pytest.raises(StoreError, match=rf"copy\.db: the file is damaged, .*{part}"),
            Store(store.path.with_name("copy.db")) as copy,
        ):
            read(copy)


def test_a_newer_store_is_left_alone(store):
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="it says 99"):
        Store(store.path)


def test_a_write_that_fails_says_which_store_and_changes_nothing(store):
    store.save("a", answer("short", 0, 1))
    bad = FinalCaption(1, "x", "unique")
    with pytest.raises(StoreError, match=r"s\.db: UNIQUE constraint"):
        store.finish(row("a"), [], [bad, bad])
    assert store.image("a").status == "waiting" and len(store.answers("a")) == 1


def test_masks_have_one_digest_in_any_order_and_another_where_one_moves():
    here, there = np.zeros((2, 4, 4), bool)
    here[0, 0] = there[1, 1] = True
    one, other = Region.from_mask(1, here), Region.from_mask("1", there)
    known = masks_digest([one, other])
    assert known == masks_digest([other, Region.from_mask(1, here, "named")])
    swapped = [Region.from_mask(1, there), Region.from_mask("1", here)]
    assert known != masks_digest(swapped) and known != masks_digest([one])


def test_the_digest_tells_inputs_apart():
    different = [
        (["a", "b"],),
        (["ab"],),
        ("a", "b"),
        ("ab",),
        (b"ab",),
        ([1],),
        (["1"],),
        (b"a", b"b"),
        ([],),
        ([], []),
        (None,),
    ]
    assert len({digest(*parts) for parts in different}) == len(different)
    assert digest({"a": 1, "b": [2]}) == digest(json.loads('{"b": [2], "a": 1}'))
