"""What trained recipes reached, beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

# in the folder of a checkpoint that `ureca train-recipe` made
RESULTS = "results.json"
LOG = "training_log.jsonl"


def compare_results(folders: Mapping[str, str | Path], measure: str = "unique") -> pd.DataFrame:
    """Shares in percent over all regions and by size, with 95% intervals over images.

    Args:
        folders: by the label of a row; each with the `results.json` of `ureca train-recipe`.
        measure: "unique" or "exact_match".

    Returns:
        A row a folder; columns are the steps of both stages, all regions, and each size.

    Raises:
        FileNotFoundError: no results there. ValueError: naming the file, where it is not such a
            file, or its recipe was measured on other data than the first one's.
    """
    rows, data = {}, None
    for label, folder in folders.items():
        path = Path(folder) / RESULTS
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            groups = {"all": told["report"]["overall"], **told["report"]["by_size"]}
            scores = {size: group[measure] for size, group in groups.items()}
            shown = {n: percent(s["value"], s["low"], s["high"]) for n, s in scores.items()}
            steps = " + ".join(str(stage["steps"]) for stage in told["stages"])
            measured_on = told["data"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the results of a recipe ({error!r})") from None
        if data not in (None, measured_on):
            raise ValueError(f"{path}: measured on {measured_on}, the others on {data}")
        data = measured_on
        rows[label] = {"steps": steps, **shown}
    return pd.DataFrame.from_dict(rows, orient="index")


def paired_differences(files: Mapping[str, str | Path], measure: str = "unique") -> pd.DataFrame:
    """Differences in points between systems that captioned the same regions, with 95% intervals.

    Args:
        files: by the label of a row; each what `ureca evaluate --compare` wrote.
        measure: "unique" or "exact_match".

    Returns:
        A row a file; columns are all regions, and each size.

    Raises:
        FileNotFoundError: no such file. ValueError: naming the file, where it holds no comparison.
    """
    rows = {}
    for label, file in files.items():
        try:
            told = json.loads(Path(file).read_text(encoding="utf-8"))["comparison"]
            groups = {"all": told["differences"], **told["differences_by_size"]}
            found = {size: group[measure] for size, group in groups.items()}
            rows[label] = {
                size: _points(each["difference"], each["low"], each["high"])
                for size, each in found.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}: no comparison of two systems ({error!r})") from None
    return pd.DataFrame.from_dict(rows, orient="index")


def stage_logs(folders: Mapping[str, str | Path], stage: int) -> dict[str, list[dict[str, Any]]]:
    """What was noted while one stage of each recipe was trained, for `training_figure`.

    Args:
        folders: by the label of a run; each with the `training_log.jsonl` of `ureca train-recipe`.
        stage: 1 or 2.

    Returns:
        By label its rows, in the order of their steps.

    Raises:
        FileNotFoundError: no log there. ValueError: naming the file, where it is not such a log or
            has nothing of the stage.
    """
    logs = {}
    for label, folder in folders.items():
        path = Path(folder) / LOG
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            logs[label] = [row for row in rows if row["stage"] == stage]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the log of a recipe ({error!r})") from None
        if not logs[label]:
            raise ValueError(f"{path}: there is no stage {stage}")
    return logs


def _points(difference: float, low: float | None, high: float | None) -> str:
    shown = f"{100 * difference:+.1f}"
    if low is None or high is None:  # of a single image
        return shown
    return f"{shown} [{100 * low:+.1f}, {100 * high:+.1f}]"


def percent(value: float, low: float | None, high: float | None, mark: str = "") -> str:
    """A share and its interval, which a single image has none of: `71.3 [70.1, 72.5]`."""
    shown = f"{100 * value:.1f}{mark}"
    if low is None or high is None:
        return shown
    return f"{shown} [{100 * low:.1f}{mark}, {100 * high:.1f}{mark}]"
