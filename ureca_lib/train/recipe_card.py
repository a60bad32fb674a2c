"""A trained recipe as a checkpoint of a repository: half the size, measured, with its card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from ureca_lib.checkpoints import load_pair
from ureca_lib.checkpoints.half import save_half
from ureca_lib.evaluate.exact import ExactReport
from ureca_lib.evaluate.scores import Score
from ureca_lib.runs.record import write_json
from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.recipe import Recipe, Trained, measure_model, report_values, stage_values

MEASURED_ON = "scenes:test:500"
RESULTS = "results.json"

_CARD = """# Tiny URECA

Preset tiny with both stages done: the mask encoder learnt on the frozen base in stage 1, LoRA
adapters in stage 2, merged into the weights. {parameters:,} parameters.

It has seen nothing but drawn scenes of specification {version}. It captions those; of a photograph
it says what it would say of a drawing, which is mostly wrong.

| | |
|---|---|
| base | `{base}` |
| masks | {mask}, {mask_tokens} tokens a tile{placed} |
| seed | {seed} |
{stages}
| measured on | `{data}`, all regions |
{measured}

Unique: the scene's grammar resolves the caption to its region and no other. Intervals are 95%, by
bootstrap over images. `results.json` has them by size and by level, `training_log.jsonl` the losses
of both stages. Weights are stored in float16 and computed with in float32. Made by

    {command}
"""


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
    out = Path(out)
    model, processor = load_pair(trained.model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    save_half(model, out)
    processor.save_pretrained(out)
    with (out / "training_log.jsonl").open("w", encoding="utf-8") as file:
        for number, result in enumerate(trained.stages, 1):
            for row in result.log:
                file.write(json.dumps({"stage": number} | row) + "\n")
    recipe = trained.recipe
    blind = recipe.mask == "none"
    report = measure_model(out, data, Path(work) / "predictions.jsonl", blind)
    stages = [stage_values(result) for result in trained.stages]
    write_json(
        out / RESULTS,
        {"recipe": asdict(recipe), "data": data, "stages": stages}
        | {"values": report_values(report), "report": report.to_dict()},
    )
    (out / "README.md").write_text(_card(trained, out, data, report, parameters), encoding="utf-8")
    return report


def compare_results(folders: Mapping[str, str | Path], measure: str = "unique") -> pd.DataFrame:
    """What trained recipes reached, over all regions and by size, beside each other.

    Args:
        folders: by the label of a row; each with the `results.json` of `publish`.
        measure: "unique" or "exact_match".

    Returns:
        Percent with 95% intervals as texts; a column of all regions, one of each size and one of
        the steps of both stages.

    Raises:
        FileNotFoundError: no results there. ValueError: naming the file, where it is not such a
            file or they were measured on other data than the first's.
    """
    rows, data = {}, None
    for label, folder in folders.items():
        path = Path(folder) / RESULTS
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            groups = {"all": told["report"]["overall"], **told["report"]["by_size"]}
            shown = {size: _percent(scores[measure]) for size, scores in groups.items()}
            steps = " + ".join(str(stage["steps"]) for stage in told["stages"])
            measured_on = told["data"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the results of a recipe ({error!r})") from None
        if data not in (None, measured_on):
            raise ValueError(f"{path}: measured on {measured_on}, the others on {data}")
        data = measured_on
        rows[label] = {"steps": steps, **shown}
    return pd.DataFrame.from_dict(rows, orient="index")


def _percent(score: Mapping[str, Any]) -> str:
    text, bounds = f"{100 * score['value']:.1f}", (score["low"], score["high"])
    if None in bounds:
        return text
    return f"{text} [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _card(trained: Trained, out: Path, data: str, report: ExactReport, parameters: int) -> str:
    stages = [
        f"| stage {number} | {result.steps} steps, {result.seconds / 60:.0f} minutes, "
        f"{result.trained_parameters:,} parameters learnt |"
        for number, result in enumerate(trained.stages, 1)
    ]
    measured = [
        f"| {name.replace('_', ' ')} | {_with_interval(score)} |"
        for name, score in report.overall.items()
    ]
    recipe = asdict(trained.recipe)
    return _CARD.format(
        parameters=parameters,
        version=SceneSpecification().version,
        stages="\n".join(stages),
        measured="\n".join(measured),
        data=data,
        command=_command(trained.recipe, out, data),
        placed=", with a tile embedding" if trained.recipe.tile_embedding else "",
        **{name: recipe[name] for name in ("base", "mask", "mask_tokens", "seed")},
    )


def _command(recipe: Recipe, out: Path, data: str) -> str:
    """The command line that makes this checkpoint; what is at its default is left out."""
    words = ["ureca", "train-recipe", "--base", recipe.base, "--out", str(out)]
    for each in fields(recipe):
        value, flag = getattr(recipe, each.name), each.name.replace("_", "-")
        if each.name == "base" or value == each.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    if data != MEASURED_ON:
        words += ["--evaluate", data]
    return shlex.join(words)


def _with_interval(score: Score) -> str:
    if score.low is None or score.high is None:  # of a single image
        return f"{score.value:.1%}"
    return f"{score.value:.1%} [{score.low:.1%}, {score.high:.1%}]"
