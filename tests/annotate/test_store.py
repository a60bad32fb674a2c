"""The store keeps what was committed, tells ids apart, and lends an image to one process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from ureca_lib.annotate.leases import Lease, is_alive
from ureca_lib.annotate.records import Answer, FinalCaption, Step, digest, masks_digest
from ureca_lib.annotate.schema import ImageRow
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.regions import Region


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


def test_a_lease_lives_as_long_as_it_is_open(tmp_path):
    lease = Lease(tmp_path / "s.db")
    assert is_alive(tmp_path / "s.db", lease.worker)
    lease.close()
    assert not is_alive(tmp_path / "s.db", lease.worker)
    assert not list((tmp_path / "s.db.workers").iterdir())


def test_settings_are_those_of_the_latest_run(store):
    store.set_settings({"rounds": 3, "views": {"margin": 0.1}})
    store.set_settings({"rounds": 1})
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
    with pytest.raises(StoreError, match=r"other\.db: not a store of version 3"):
        Store(tmp_path / "other.db")


def test_a_store_of_version_2_does_not_know_the_masks_and_loses_nothing(store):
    store.finish(row("a"), [], [FinalCaption(1, "x", "unique")])
    with sqlite3.connect(store.path) as connection:
        for column in ("masks", "made_with"):
            connection.execute(f"ALTER TABLE images DROP COLUMN {column}")
        connection.execute("DROP TABLE made_with")
        connection.execute("PRAGMA user_version=2")
    with Store(store.path) as upgraded:
        assert upgraded.image("a") == row("a")
        assert upgraded.captions("a") == [FinalCaption(1, "x", "unique")]
        upgraded.finish(row("a", masks="abc", made_with="def"))
        assert upgraded.image("a") == row("a", masks="abc", made_with="def")
        upgraded.set_settings({"rounds": 3}, {"def": {"rounds": 1}})
        assert (upgraded.settings(), upgraded.settings("def")) == ({"rounds": 3}, {"rounds": 1})


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
