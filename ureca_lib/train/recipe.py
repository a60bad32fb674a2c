"""Both stages in a row and what came out, as one call: what ablations vary and notebooks show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ureca_lib.conversation import QUESTION
from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.exact_match import ExactReport, measure_exact
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.predictions import read_predictions
from ureca_lib.evaluate.systems import build_system
from ureca_lib.train.export import export_model
from ureca_lib.train.loop import TrainingResult, train_stage
from ureca_lib.train.options import Recipe
from ureca_lib.train.stages import load_start

LONGEST = 32  # tokens of a scene's caption at most


@dataclass(frozen=True)
class Trained:
    """What a recipe ended with.

    Attributes:
        recipe: what was asked for.
        model: folder of the trained model.
        stages: how each stage that had steps ended, in order.
    """

    recipe: Recipe
    model: Path
    stages: tuple[TrainingResult, ...]

    @property
    def numbered(self) -> dict[int, TrainingResult]:
        """The stages by number: one that had no steps is missing."""
        return {int(Path(each.folder).name.removeprefix("stage")): each for each in self.stages}

    @property
    def named(self) -> dict[str, TrainingResult]:
        """The stages by name, such as "stage 1"."""
        return {f"stage {number}": result for number, result in self.numbered.items()}

    def measure(self, data: str, out: str | Path, progress: bool = True) -> ExactReport:
        """Caption all regions of some data into a predictions file, and measure it.

        Args:
            data: such as "scenes:test:100"; see `open_captioned`.
            out: the predictions file; goes on where an earlier call was stopped.
            progress: show a bar.
        """
        return measure_model(self.model, data, out, self.recipe.mask == "none", progress)


def train_recipe(
    recipe: Recipe, out: str | Path, device: str = "cpu", progress: bool = True
) -> Trained:
    """Train stage 1, then stage 2 from what it left; each goes on where it was stopped.

    Args:
        recipe: see `Recipe`. A stage of 0 steps is left out; without both, the model is the base
            with a newly drawn mask encoder.
        out: folder; `stage1/` and `stage2/` are made in it, or `untrained/`.
        device: "cpu" or "cuda".
        progress: show bars.

    Raises:
        SettingsError, CheckpointError, TrainingError: see `train_stage`.
    """
    out, model, ended = Path(out), Path(recipe.base), []
    for stage in (1, 2):
        settings = recipe.settings(stage, model) if _has_steps(recipe, stage) else None
        if settings is None:
            continue
        result = train_stage(settings, out / f"stage{stage}", device=device, progress=progress)
        model = Path(result.model)
        ended.append(result)
    if not ended:
        model = _untrained(recipe, out / "untrained")
    return Trained(recipe, model, tuple(ended))


def measure_model(
    model: str | Path, data: str, out: str | Path, no_mask: bool = False, progress: bool = True
) -> ExactReport:
    """Caption all regions of some data by a model of ours, and measure the captions.

    Args:
        model: its folder.
        data, out, progress: see `Trained.measure`.
        no_mask: show it no masks.
    """
    options = {"question": QUESTION, "max_new_tokens": LONGEST}
    system = build_system("no_mask" if no_mask else "ureca", model, **options)
    predict(system, open_captioned(data), out, progress=progress)
    return measure_exact(read_predictions(out))


def report_values(report: ExactReport) -> dict[str, Any]:
    """A report's values without intervals, for a run's record: overall, by size and by level."""
    told: dict[str, Any] = {name: score.value for name, score in report.overall.items()}
    for name, groups in (("by_size", report.by_size), ("by_level", report.by_level)):
        told[name] = {
            key: {measure: score.value for measure, score in scores.items()}
            for key, scores in groups.items()
        }
    return told


def stage_values(result: TrainingResult) -> dict[str, Any]:
    """What a stage's record needs: steps, seconds, what learnt, its last evaluation."""
    kept = ("steps", "samples", "seconds", "trained_parameters", "final", "kept_step")
    return {name: value for name, value in asdict(result).items() if name in kept}


def _has_steps(recipe: Recipe, stage: int) -> bool:
    return (recipe.steps_1 if stage == 1 else recipe.steps_2) != 0


def _untrained(recipe: Recipe, folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    model, processor = load_start(recipe.settings(1, recipe.base))
    return export_model(model, processor, folder)
