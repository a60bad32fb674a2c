"""A trained recipe as a checkpoint of a repository: half the size, measured, with its card."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict
from pathlib import Path

from ureca_lib.checkpoints import load_model_and_processor
from ureca_lib.checkpoints.loading import save_float16
from ureca_lib.evaluate.exact_match import ExactReport
from ureca_lib.journal import write_json
from ureca_lib.provenance import model_record
from ureca_lib.scenes import SceneSpecification
from ureca_lib.train.options import Recipe, option_words
from ureca_lib.train.recipe import Trained, measure_model, report_values, stage_values
from ureca_lib.train.recipe_results import LOG, RESULTS, percent

MEASURED_ON = "scenes:test:500"

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
    model, processor = load_model_and_processor(trained.model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    save_float16(model, out)
    processor.save_pretrained(out)
    with (out / LOG).open("w", encoding="utf-8") as file:
        for number, result in trained.numbered.items():
            for row in result.log:
                file.write(json.dumps({"stage": number} | row) + "\n")
    recipe = trained.recipe
    no_mask = recipe.mask == "none"
    # a file for each checkpoint and each data, since a run may be measured again on other data
    told = f"{out.resolve()} {model_record(out)['weights']} {data}"
    name = f"predictions-{hashlib.sha256(told.encode()).hexdigest()[:10]}.jsonl"
    report = measure_model(out, data, Path(work) / name, no_mask)
    stages = [stage_values(result) for result in trained.stages]
    write_json(
        out / RESULTS,
        {"recipe": asdict(recipe), "data": data, "stages": stages}
        | {"values": report_values(report), "report": report.to_dict()},
    )
    (out / "README.md").write_text(_card(trained, out, data, report, parameters), encoding="utf-8")
    return report


def _card(trained: Trained, out: Path, data: str, report: ExactReport, parameters: int) -> str:
    stages = [
        f"| stage {number} | {result.steps} steps, {result.seconds / 60:.0f} minutes, "
        f"{result.trained_parameters:,} parameters learnt |"
        for number, result in trained.numbered.items()
    ]
    measured = [
        f"| {name.replace('_', ' ')} | {percent(score.value, score.low, score.high, '%')} |"
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
    """The command line that makes this checkpoint; options at their default are left out."""
    words = ["ureca", "train-recipe", "--out", str(out), *option_words(recipe)]
    return shlex.join(words + (["--evaluate", data] if data != MEASURED_ON else []))
