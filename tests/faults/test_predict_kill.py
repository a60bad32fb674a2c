"""`predict` killed again and again ends with the file of a run that was not."""

from __future__ import annotations

import time

from faults.predict_child import SCENES, SlowSystem, predict_slowly
from forked import CONTEXT

from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import meta_path, read_meta


def test_killed_runs_lose_nothing_and_repeat_nothing(tmp_path):
    path = tmp_path / "killed.jsonl"
    sizes = [0]
    for _ in range(2):
        child = CONTEXT.Process(target=predict_slowly, args=(path,))
        child.start()
        limit = time.monotonic() + 600  # a machine that does other things too
        while not path.exists() or path.stat().st_size <= sizes[-1]:
            assert child.is_alive() and time.monotonic() < limit
            time.sleep(0.01)
        child.kill()
        child.join()
        sizes.append(path.stat().st_size)
    assert sizes == sorted(set(sizes))
    data = open_captioned(SCENES)
    done = path.read_bytes()
    resumed = predict(SlowSystem("shuffled", 3), data, path, progress=False)
    assert path.read_bytes().startswith(done) and 0 < resumed.made < resumed.predictions
    whole = predict(SlowSystem("shuffled", 3), data, tmp_path / "whole.jsonl", progress=False)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert whole.made == whole.predictions == resumed.predictions
    assert read_meta(path)["predictions"] == whole.predictions
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith(".")) == [
        *("killed.jsonl", meta_path(path).name, "whole.jsonl", "whole.meta.json")
    ]
