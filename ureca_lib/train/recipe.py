"""Both stages in a row and what came out: what ablations vary and notebooks show.

`publish` writes the model as a checkpoint of a repository: half the size, measured, with its card.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ureca_lib.checkpoints import load_model_and_processor
from ureca_lib.checkpoints.loading import save_float16
from ureca_lib.conversation import QUESTION
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.exact_match import ExactReport, measure_exact
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import read_predictions
from ureca_lib.evaluate.systems import build_system
from ureca_lib.journal import write_json
from ureca_lib.provenance import model_record
from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.export import export_model, write_card
from ureca_lib.train.loop import TrainingResult, train_stage
from ureca_lib.train.settings import Recipe, option_words
from ureca_lib.train.stages import load_start

LONGEST = 32  # tokens of a scene's caption at most
MEASURED_ON = "scenes:test:500"
# in the folder of a checkpoint that `publish` wrote
RESULTS, LOG = "results.json", "training_log.jsonl"


@dataclass(frozen=True)
class Trained:
    """What a recipe ended with.

    Attributes:
        recipe: what was asked for.
        model: folder of the trained model.
        numbered: how each stage ended, by its number; one that had no steps is missing.
    """

    recipe: Recipe
    model: Path
    numbered: dict[int, TrainingResult]

    @property
    def named(self) -> dict[str, TrainingResult]:
        """The stages by name, such as "stage 1"."""
        return {f"stage {number}": result for number, result in self.numbered.items()}

    def measure(self, data: str, out: str | Path, progress: bool = True) -> ExactReport:
        """`measure_model` on the trained model."""
        return measure_model(self.model, data, out, self.recipe.mask == "none", progress)


def train_recipe(
    recipe: Recipe, out: str | Path, device: str = "cpu", progress: bool = True
) -> Trained:
    """Train stage 1, then stage 2 from what it left; each resumes where it was stopped.

    Args:
        recipe: see `Recipe`. A stage of 0 steps is left out; without both, the model is the base
            with a newly drawn mask encoder.
        out: folder; `stage1/` and `stage2/` are made in it, or `untrained/`.
        device: "cpu" or "cuda".
        progress: show bars.

    Raises:
        ValueError, OSError: see `train_stage`.
    """
    out, model, ended = Path(out), Path(recipe.base), {}
    for stage, steps in ((1, recipe.steps_1), (2, recipe.steps_2)):
        if steps == 0:
            continue
        settings = recipe.settings(stage, model)
        ended[stage] = train_stage(settings, out / f"stage{stage}", device, progress)
        model = Path(ended[stage].model)
    if not ended:
        model = out / "untrained"
        if not (model / "config.json").is_file():
            export_model(*load_start(recipe.settings(1, recipe.base)), model)
    return Trained(recipe, model, ended)


def measure_model(
    model: str | Path, data: str, out: str | Path, no_mask: bool = False, progress: bool = True
) -> ExactReport:
    """Caption all regions of some data by a model of ours, and measure the captions.

    Args:
        model: its folder.
        data: such as "scenes:test:100"; see `open_captioned`.
        out: the predictions file; an earlier call that was stopped is resumed.
        no_mask: show it no masks.
        progress: show a bar.
    """
    options = {"question": QUESTION, "max_new_tokens": LONGEST}
    system = build_system("no_mask" if no_mask else "ureca", model, **options)
    predict(system, open_captioned(data), out, progress=progress)
    return measure_exact(read_predictions(out))


def report_values(report: ExactReport) -> dict[str, Any]:
    """A report's values without intervals, for a run's record: overall, by size and by level."""
    values: dict[str, Any] = {name: score.value for name, score in report.overall.items()}
    for name, groups in (("by_size", report.by_size), ("by_level", report.by_level)):
        values[name] = {
            key: {measure: score.value for measure, score in scores.items()}
            for key, scores in groups.items()
        }
    return values


def stage_values(result: TrainingResult) -> dict[str, Any]:
    """What a stage's record needs: steps, seconds, trainable parameters, its last evaluation."""
    kept = ("steps", "samples", "seconds", "trained_parameters", "final", "kept_step")
    return {name: value for name, value in asdict(result).items() if name in kept}


def publish(trained: Trained, out: str | Path, data: str, work: str | Path) -> ExactReport:
    """Write a checkpoint with its card, log and results.

    Args:
        trained: what a recipe ended with.
        out: folder of the checkpoint.
        data: what it is measured on, as it is stored.
        work: where the predictions file goes.

    Returns:
        What was measured.
    """
    out, recipe = Path(out), trained.recipe
    model, processor = load_model_and_processor(trained.model)
    save_float16(model, out)
    processor.save_pretrained(out)
    rows = [
        {"stage": number} | row for number, result in trained.numbered.items() for row in result.log
    ]
    (out / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # a file for each checkpoint and each data, since a run may be measured again on other data
    identity = f"{out.resolve()} {model_record(out)['weights']} {data}"
    name = f"predictions-{hashlib.sha256(identity.encode()).hexdigest()[:10]}.jsonl"
    report = measure_model(out, data, Path(work) / name, recipe.mask == "none")
    stages = [stage_values(result) for result in trained.numbered.values()]
    write_json(
        out / RESULTS,
        {"recipe": asdict(recipe), "data": data, "stages": stages}
        | {"values": report_values(report), "report": report.to_dict()},
    )
    stage_rows = (
        f"| stage {number} | {result.steps} steps, {result.seconds / 60:.0f} minutes, "
        f"{result.trained_parameters:,} parameters learnt |"
        for number, result in trained.numbered.items()
    )
    measured = (
        f"| {name.replace('_', ' ')} | {_interval(vars(score), '%')} |"
        for name, score in report.overall.items()
    )
    words = ["ureca", "train-recipe", "--out", str(out), *option_words(recipe)]
    write_card(
        out,
        "recipe",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        version=SceneSpecification().version,
        stages="\n".join(stage_rows),
        measured="\n".join(measured),
        data=data,
        command=shlex.join(words + (["--evaluate", data] if data != MEASURED_ON else [])),
        placed=", with a tile embedding" if recipe.tile_embedding else "",
        recipe=recipe,
    )
    return report


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
        with _reading(path, "the results of a recipe"):
            results = json.loads(path.read_text(encoding="utf-8"))
            groups = {"all": results["report"]["overall"], **results["report"]["by_size"]}
            steps = " + ".join(str(stage["steps"]) for stage in results["stages"])
            shown = {size: _interval(group[measure]) for size, group in groups.items()}
            rows[label], measured_on = {"steps": steps, **shown}, results["data"]
        if data not in (None, measured_on):
            raise ValueError(f"{path}: measured on {measured_on}, the others on {data}")
        data = measured_on
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
        with _reading(file, "a comparison of systems"):
            compared = json.loads(Path(file).read_text(encoding="utf-8"))["comparison"]
            groups = {"all": compared["differences"], **compared["differences_by_size"]}
            rows[label] = {
                size: _interval(group[measure], key="difference", sign="+")
                for size, group in groups.items()
            }
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
        with _reading(path, "the log of a recipe"):
            rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            logs[label] = [row for row in rows if row["stage"] == stage]
        if not logs[label]:
            raise ValueError(f"{path}: there is no stage {stage}")
    return logs


@contextmanager
def _reading(path: str | Path, kind: str) -> Iterator[None]:
    """Name the file whose content is at fault."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not {kind} ({error!r})") from None


def _interval(score: Mapping[str, Any], mark: str = "", key: str = "value", sign: str = "") -> str:
    """A share and its interval, which a single image has none of: `71.3 [70.1, 72.5]`."""
    value, low, high = (score[name] for name in (key, "low", "high"))
    shown = [f"{100 * each:{sign}.1f}{mark}" for each in (value, low, high) if each is not None]
    return shown[0] if len(shown) < 3 else f"{shown[0]} [{shown[1]}, {shown[2]}]"
