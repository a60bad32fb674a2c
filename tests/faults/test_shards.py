"""Shards of an annotation run, on processes and on a Ray cluster of two workers on this machine.

A server counts the questions. Workers and drivers are killed in the middle: nothing is lost, and
nothing is asked again but what was in flight.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from fake_annotators import write_images
from faults.server import FaultyServer, say
from small_ray import small_ray
from typer.testing import CliRunner

from ureca_lib.annotate.shards import deal_images, open_stores
from ureca_lib.annotate.sources import SplitRule
from ureca_lib.cli import app

IMAGES, SHARDS, IN_FLIGHT, PATIENCE = 6, 3, 2, 120.0


def ureca(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def answer(handler) -> None:
    """A caption that depends on the question alone, after a moment."""
    said = hashlib.sha256(json.dumps(handler.body["messages"]).encode()).hexdigest()[:8]
    time.sleep(0.02)
    say(f"caption {said}")(handler)


@pytest.fixture
def server():
    with FaultyServer(then=answer) as started:
        yield started


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder, IMAGES, side=24)
    return folder


def command(photos: Path, server: FaultyServer, out: Path, *more: object) -> list[str]:
    words = ["annotate", photos, "--out", out, "--annotator", "openai", "--model", "m"]
    words += ["--base-url", server.url, "--in-flight", IN_FLIGHT, "--split", "test=0.3"]
    return [str(word) for word in (*words, *more)]


def contents(path: Path) -> dict:
    """All captions, by image, and the split of each image."""
    with open_stores(path) as stores:
        return {
            Path(row.image).name: (row.split, store.reviewed_captions(row.image))
            for store in stores
            for row in store.images()
        }


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory) -> tuple[dict, int, Path]:
    """Captions of a run of one process, its number of questions, and its data set."""
    folder = tmp_path_factory.mktemp("single")
    with FaultyServer(then=answer) as server:
        result = ureca(*command(photos, server, folder / "store.sqlite", "--no-progress"))
        assert result.exit_code == 0, result.output
        number = len(server.seen)
    exported = ureca("export", folder / "store.sqlite", "--out", folder / "data", "--no-progress")
    assert exported.exit_code == 0, exported.output
    return contents(folder / "store.sqlite"), number, folder / "data"


@pytest.fixture(scope="module")
def ray_address():
    with small_ray() as address:
        yield address


def on_ray(address: str) -> tuple[str, ...]:
    return ("--shards", str(SHARDS), "--engine", "ray", "--ray-address", address)


def workers() -> list[psutil.Process]:
    """Ray's processes that work on a shard."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::_call"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_whole(out: Path, expected, server: FaultyServer, kills: int) -> None:
    """The stores hold what the single process made, for hardly more questions."""
    whole, needed, _ = expected
    assert contents(out) == whole
    assert needed <= len(server.seen) <= needed + kills * IN_FLIGHT


def test_a_run_on_ray_equals_one_of_a_single_process(
    photos, server, ray_address, expected, tmp_path
):
    out = tmp_path / "stores"
    result = ureca(*command(photos, server, out, *on_ray(ray_address)))
    assert result.exit_code == 0, result.output
    assert f"{SHARDS} of {SHARDS} shards are complete" in result.stdout
    assert result.stderr.count(f" of {socket.gethostname()})") == SHARDS
    assert_whole(out, expected, server, kills=0)
    status = ureca("status", out).stdout
    assert f"calls     {expected[1]:,}, " in status and "waiting" not in status
    exported = ureca("export", out, "--out", tmp_path / "data", "--no-progress")
    assert exported.exit_code == 0, exported.output
    files = sorted(path.relative_to(expected[2]) for path in expected[2].rglob("*.json*"))
    assert len(files) > 5
    for file in files:
        if file.name != "manifest.json":  # it has the sizes of files that hold times
            assert (tmp_path / "data" / file).read_bytes() == (expected[2] / file).read_bytes()
    # again, on processes of this machine: nothing is left to ask
    again = ureca(*command(photos, server, out, "--shards", SHARDS, "--jobs", 1))
    assert again.exit_code == 0 and again.stderr.count("; 0 calls") == SHARDS


def test_a_worker_that_is_killed_is_replaced(photos, server, ray_address, expected, tmp_path):
    out, results = tmp_path / "stores", []
    words = command(photos, server, out, *on_ray(ray_address))
    thread = threading.Thread(target=lambda: results.append(ureca(*words)))
    thread.start()
    until(lambda: len(server.seen) > expected[1] // 3 and workers())
    workers()[0].kill()
    thread.join()
    assert results[0].exit_code == 0, results[0].output
    assert_whole(out, expected, server, kills=1)


def test_a_driver_that_is_killed_is_started_again(photos, server, ray_address, expected, tmp_path):
    out = tmp_path / "stores"
    words = command(photos, server, out, *on_ray(ray_address))
    driver = subprocess.Popen(
        [sys.executable, "-m", "ureca_lib.cli", *words], stderr=subprocess.DEVNULL
    )
    until(lambda: len(server.seen) > expected[1] // 3)
    driver.kill()
    driver.wait()
    until(lambda: not workers())  # Ray stops the tasks of a driver that is gone
    assert len(server.seen) < expected[1]
    result = ureca(*words)
    assert result.exit_code == 0, result.output
    assert_whole(out, expected, server, kills=2)


def test_a_store_that_is_damaged_is_named_and_the_others_finish(
    photos, server, ray_address, expected, tmp_path
):
    out = tmp_path / "stores"
    first, *others = deal_images([photos], out, SHARDS, SplitRule())
    out.mkdir()
    first.write_bytes(b"not a store" * 1000)
    result = ureca(*command(photos, server, out, *on_ray(ray_address)))
    assert result.exit_code == 1
    assert f"{first.name}: StoreError: {first}: file is not a database" in result.stderr
    assert f"{SHARDS - 1} of {SHARDS} shards are complete" in result.stdout
    for store in others:
        assert contents(store).items() <= expected[0].items()
    for words in (("status", out), ("export", out, "--out", tmp_path / "data")):
        refused = ureca(*words)
        assert refused.exit_code == 2 and str(first) in refused.stderr
    first.unlink()
    assert ureca(*command(photos, server, out, "--shards", SHARDS)).exit_code == 0
    assert contents(out) == expected[0]


def test_every_image_has_one_shard_wherever_it_is(tmp_path):
    names = [f"image_{number}" for number in range(40)]
    dealt = {}
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / f"{name}.json").touch()
        shards = deal_images([tmp_path / place], tmp_path / "out", 8, SplitRule())
        dealt[place] = {store.name: [f.stem for f in files] for store, files in shards.items()}
    assert dealt["here"] == dealt["there"] and len(dealt["here"]) == 8
    assert sorted(name for files in dealt["here"].values() for name in files) == sorted(names)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard-00000-of-00003.sqlite").touch()
    with pytest.raises(ValueError, match=r"00003\.sqlite: the folder has stores of another number"):
        deal_images([tmp_path / "here"], tmp_path / "out", 8, SplitRule())


def test_settings_of_shards_that_differ_are_refused(photos, tmp_path):
    out, words = tmp_path / "stores", ["annotate", photos, "--shards", 2, "--jobs", 1]
    assert ureca(*words, "--out", out, "--no-progress").exit_code == 0
    some = [path for path in deal_images([photos], out, 2, SplitRule()).popitem()[1]]
    store = deal_images([photos], out, 2, SplitRule()).popitem()[0]
    assert ureca("annotate", *some, "--out", store, "--rounds", 1, "--no-progress").exit_code == 0
    refused = ureca("export", out, "--out", tmp_path / "data", "--no-progress")
    assert refused.exit_code == 2 and "with other settings" in refused.stderr
    mixed = ureca("export", out, "--out", tmp_path / "data", "--no-progress", "--mixed")
    assert mixed.exit_code == 0, mixed.output


def test_a_list_of_splits_holds_for_all_shards(photos, tmp_path):
    splits, out = tmp_path / "splits.json", tmp_path / "stores"
    splits.write_text(json.dumps({"image_0": "test"}))
    words = ["annotate", photos, "--out", out, "--shards", 2, "--jobs", 1, "--split", splits]
    result = ureca(*words, "--verify", "test")
    assert result.exit_code == 0 and "entries of the list" not in result.stderr, result.output
    assert [name for name, (split, _) in contents(out).items() if split == "test"] == [
        "image_0.json"
    ]


def test_addresses_are_dealt_out_to_the_shards(photos, tmp_path):
    with FaultyServer(then=answer) as one, FaultyServer(then=answer) as other:
        words = ["annotate", photos, "--out", tmp_path / "stores", "--annotator", "openai"]
        words += ["--model", "m", "--base-url", f"{one.url},{other.url}", "--shards", 2]
        result = ureca(*words, "--jobs", 2)
        assert result.exit_code == 0, result.output
        assert one.seen and other.seen
