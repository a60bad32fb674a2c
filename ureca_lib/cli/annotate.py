"""`ureca annotate`, `ureca status`, `ureca look-alikes` and `ureca export`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from filelock import FileLock, Timeout

from ureca_lib.annotate import PAPER_DIFFERENCES
from ureca_lib.chat import KEY_HELP, with_chat_options
from ureca_lib.devices import DEVICE_HELP, chosen_device
from ureca_lib.engine import ShardOptions, call_command, dealt, run_parts
from ureca_lib.options import options_of

if TYPE_CHECKING:
    from ureca_lib.annotate.look_alikes import RegionFeatures

_STORE = "The store, an SQLite file, or a folder of shards."
_PER_SPLIT = "May be repeated as SPLIT=VALUE."
_Images = Annotated[
    list[Path],
    typer.Argument(
        help="Photos, folders of them, or files of masks, see `ureca data --formats`. PHOTOS@MASKS "
        "names masks elsewhere."
    ),
]
_Dino = Annotated[
    str | None,
    typer.Option(help="DINOv2 or DINOv3 (hub id or folder), instead of color and shape."),
]
_Device = Annotated[str | None, typer.Option(help=DEVICE_HELP)]


@with_chat_options()
@options_of(ShardOptions, into="engine")
def annotate(
    ctx: typer.Context,
    chat: dict[str, Any],
    images: _Images,
    out: Path = typer.Option(
        ..., "-o", "--out", help="The store, an SQLite file; with --shards their folder."
    ),
    annotator: list[str] | None = typer.Option(
        None, help=f"attributes (default; no model), openai or transformers. {_PER_SPLIT}"
    ),
    model: list[str] | None = typer.Option(
        None, help=f"Name, hub id or folder of the model. {_PER_SPLIT}"
    ),
    base_url: list[str] | None = typer.Option(
        None, help=f"Address of an OpenAI-compatible server. {_PER_SPLIT}"
    ),
    api_key_env: list[str] | None = typer.Option(None, help=f"{KEY_HELP} {_PER_SPLIT}"),
    device: _Device = None,
    split: str = typer.Option(
        "train", help="Split of all images, NAME=SHARE, or a JSON file {file name: split}."
    ),
    rounds: int | None = typer.Option(
        None, help="Most refinements of a region, 3 by default; --paper: 1."
    ),
    paper: bool = typer.Option(
        False, help="The published rules: main objects, one round, verified test set."
    ),
    verify: list[str] | None = typer.Option(
        None, help="A split that is verified; may be repeated."
    ),
    verifier_model: str | None = typer.Option(
        None, help="Model that verifies, at OpenAI or --verifier-url."
    ),
    verifier_url: str | None = typer.Option(None, help="Address of the server that verifies."),
    verifier_key_env: str | None = typer.Option(
        None, help="The same as --api-key-env, for the server that verifies."
    ),
    dino: _Dino = None,
    threshold: float | None = typer.Option(
        None, help="Cosine similarity of look-alikes; see ureca look-alikes."
    ),
    in_flight: int | None = typer.Option(None, help="Most calls at a time."),
    masks: Path | None = typer.Option(
        None, help="A file or folder of the photos' masks; else beside them."
    ),
    use_boxes: bool = typer.Option(
        False, "--use-boxes", help="Read boxes as regions where a file has no masks."
    ),
    strict: bool = typer.Option(
        True, help="A bad mask fails its image; --no-strict leaves it out."
    ),
    retry_failed: bool = typer.Option(True, help="Ask again what failed in an earlier run."),
    wait: bool = typer.Option(
        True, help="Wait for images that another process has; --no-wait leaves them."
    ),
    progress: bool = typer.Option(True, help="Show a bar."),
    part: bool = typer.Option(False, hidden=True),  # the images are those of a shard
    *,
    engine: ShardOptions,
) -> None:
    """Caption every region of the images uniquely; resumes where an earlier run stopped.

    \b
    ureca annotate photos/ --out captions.sqlite --annotator openai --model gpt-4o
    ureca annotate photos/ --out stores/ --shards 8 --engine ray
    """
    if engine.shards and not part:
        annotate_shards(ctx.params, engine)
        return
    from ureca_lib.annotate.annotators import make_annotator
    from ureca_lib.annotate.run import annotate_images
    from ureca_lib.annotate.settings import CheckSettings, PipelineSettings
    from ureca_lib.annotate.sources import SplitRule

    rule, settings = SplitRule.parse(split), PipelineSettings()
    if paper:
        settings = PipelineSettings.paper()
        if rounds not in (None, 1):
            raise ValueError(f"--paper is one round, not the {rounds} of --rounds")
    settings = replace(
        settings,
        look_alikes=replace(settings.look_alikes, threshold=threshold),
        check=settings.check if rounds is None else CheckSettings(rounds=rounds),
        verify_splits=tuple(sorted({*settings.verify_splits, *(verify or ())})),
        strict=strict,
        boxes=use_boxes,
        retry_failed=retry_failed,
    )
    options = [_per_split(values) for values in (annotator, model, base_url, api_key_env)]
    named = {*(verify or ()), *(key for option in options for key in option if key)}
    if unknown := sorted(named - rule.names):
        known = ", ".join(sorted(rule.names))
        raise ValueError(f"no image is in the split {unknown[0]!r}; --split gives {known}")
    if verifier_url and not verifier_model:
        raise ValueError("--verifier-url goes with a --verifier-model")
    if verifier_model and not rule.names & {*settings.verify_splits}:
        raise ValueError("nothing is verified: --verifier-model goes with --verify SPLIT")
    if chat and not verifier_model and {*options[0].values()} <= {"attributes"}:
        raise ValueError(f"{', '.join(chat)}: no model is asked; give --annotator openai")

    @cache
    def made(kind: str, name: str | None, url: str | None, key: str | None, at: str | None) -> Any:
        given = {} if kind == "attributes" else chat
        return make_annotator(kind, name, url, at, key, in_flight, **given)

    class OfSplits(dict):
        """Annotators by split, made when they are first asked for; equal options share one."""

        def __missing__(self, split: str) -> Any:
            kind, *rest = (option.get(split, option.get("")) for option in options)
            return made(kind or "attributes", *rest, device)

    verifier = None
    if verifier_model:
        verifier = made("openai", verifier_model, verifier_url, verifier_key_env, None)
    summary = annotate_images(
        _with_masks(images, masks),
        out,
        OfSplits(),
        settings,
        splits=rule,
        verifier=verifier,
        features=_features(dino, device),
        in_flight=in_flight,
        wait=wait,
        progress=progress,
        part=part,
    )
    typer.echo(f"{summary}\nstore: {out}")
    for image, reason in summary.failures:
        # the reason of a file that cannot be read names it already
        named = Path(image).name in reason
        typer.echo(f"failed: {reason if named else f'{image}: {reason}'}", err=True)
    if not summary.complete:
        typer.echo(f"See `ureca status {out}`; rerun the command to resume.", err=True)
        raise typer.Exit(1)


annotate.__doc__ = (
    f"{inspect.cleandoc(annotate.__doc__)}\n\n\b\n{PAPER_DIFFERENCES}"  # \b: keep the table's lines
)


def annotate_shards(options: Mapping[str, Any], engine: ShardOptions) -> None:
    """Annotate the images of a run in shards, and print a line per shard.

    Args:
        options: all options of `ureca annotate`, by their names as parameters.
        engine: that runs the shards.

    Raises:
        typer.Exit: a shard failed, or is not complete; the others are finished.
    """
    from ureca_lib.annotate.shards import deal_images
    from ureca_lib.annotate.sources import SplitRule

    out, tasks = Path(options["out"]), {}
    rule = SplitRule.parse(options["split"])
    images = _with_masks(options["images"], options["masks"])
    shards = deal_images(images, out, engine.shards, rule)
    for number, (store, files) in enumerate(shards.items()):
        task = {**options, "out": store, "images": files, "progress": False, "part": True}
        task["masks"] = None  # they are named with the images
        task["base_url"] = [dealt(text, number) for text in options["base_url"] or []]
        task["verifier_url"] = dealt(options["verifier_url"], number)
        tasks[store.name] = task
    out.mkdir(parents=True, exist_ok=True)
    left = run_parts(annotate_shard, tasks, engine, options["progress"])
    typer.echo(f"{len(tasks) - left} of {len(tasks)} shards are complete\nstores: {out}")
    if left:
        typer.echo(f"See `ureca status {out}`; rerun the command to resume.", err=True)
        raise typer.Exit(1)


def annotate_shard(task: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Annotate one shard by `ureca annotate`; a process of the engine calls this.

    Raises:
        ValueError: another process, perhaps of another machine, is annotating the shard.
    """
    store = task["options"]["out"]
    try:
        # the system frees the lock when this process ends, however it ends
        with FileLock(f"{store}.lock", timeout=0):
            return call_command(annotate, {"ctx": None, **task["options"]})
    except Timeout:
        raise ValueError(f"{store}: another process is annotating this shard") from None


def _with_masks(images: list[Path], masks: Path | None) -> list[Path]:
    """`PHOTOS@MASKS` of each, if the masks are elsewhere."""
    return images if masks is None else [Path(f"{path}@{masks.absolute()}") for path in images]


def look_alikes(
    images: _Images,
    dino: _Dino = None,
    threshold: float | None = typer.Option(
        None, help="Cosine similarity; default: the features' own."
    ),
    family: bool = typer.Option(
        False, help="Include pairs of which one holds the other, as --paper does."
    ),
    out: Path = typer.Option(
        Path("look_alikes.png"), "-o", "--out", help="Histogram, and the pairs near the threshold."
    ),
    device: _Device = None,
) -> None:
    """Show which regions of your photos look alike at a threshold, to choose one by eye.

    Prints the share of pairs of regions above several thresholds, and draws a histogram of the
    similarities and the pairs nearest to the threshold. `LookAlikeSettings.threshold` sets it.
    """
    from ureca_lib.annotate.look_alikes import ColorTextureFeatures, survey_similarities
    from ureca_lib.annotate.sources import find_sources
    from ureca_lib.figures import save_figure, survey_figure
    from ureca_lib.mask_tree import build_mask_tree

    features = _features(dino, device) or ColorTextureFeatures()
    at = features.threshold if threshold is None else threshold
    sources = find_sources(images, Path())
    loaded = ((source.name, source.load(True)) for source in sources)
    trees = ((name, image, build_mask_tree(image)) for name, image in loaded)
    similarities, near = survey_similarities(trees, features, at, family)
    if not near:
        raise ValueError("no photo has two regions to compare")
    save_figure(survey_figure(similarities, at, near), out)
    typer.echo(f"{len(sources)} photos, {len(similarities)} pairs of regions, {features.name}")
    for value in sorted({0.5, 0.6, 0.7, 0.8, 0.9, 0.95, at}):
        mark = "  <- threshold" if value == at else ""
        typer.echo(f"  {value:4.2f}: {(similarities >= value).mean():6.1%} of pairs{mark}")
    typer.echo(f"figure -> {out}")


def status(store: Path = typer.Argument(help=_STORE)) -> None:
    """Show the content of a store: counts by stage and state, failures, rate, time left."""
    from ureca_lib.annotate.progress import read_status
    from ureca_lib.annotate.shards import open_stores

    with open_stores(store) as stores:
        typer.echo(str(read_status(*stores)))


def export(
    store: str = typer.Argument(
        help=f"{_STORE} With --format also predictions, captions of `ureca caption`, or data with "
        "captions."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="Folder of the data set."),
    tool: str | None = typer.Option(
        None,
        "--format",
        help="Files for a tool instead of a data set: coco, label-studio, cvat or fiftyone.",
    ),
    prefix: str = typer.Option(
        "", help="With --format: text before the photos' names, such as an address."
    ),
    include: list[str] | None = typer.Option(
        None,
        help="Captions of another state in JSONL and COCO too, marked with it: unresolved, "
        "dropped or failed. May be repeated.",
    ),
    title: str = typer.Option("A URECA data set", help="Heading of the data card."),
    image_license: str | None = typer.Option(None, help="Terms of the photos."),
    mask_license: str | None = typer.Option(None, help="Terms of the masks."),
    caption_license: str | None = typer.Option(None, help="Terms of the captions."),
    mixed: bool = typer.Option(
        False, "--mixed", help="Captions of several settings together; the card says so."
    ),
    progress: bool = typer.Option(True, help="Show a bar."),
) -> None:
    """Write a store's captions as a data set: JSONL, Parquet, COCO and a card for the hub.

    \b
    ureca export store.sqlite --out dataset/
    ureca export store.sqlite --format label-studio --out tasks/
    """
    from ureca_lib.annotate.card import CardTexts
    from ureca_lib.annotate.export import export_dataset

    texts = CardTexts(title, image_license, mask_license, caption_license)
    states = tuple(dict.fromkeys(("unique", *(include or ()))))
    if tool is not None:
        from ureca_lib.tool_files import export_to_tool

        count = export_to_tool(store, out, tool, states, prefix)
        typer.echo(f"{count:,} captions -> {out}")
        return
    exported = export_dataset(store, out, states, texts, progress=progress, mixed=mixed)
    regions = exported.statistics.regions
    for split, of_split in regions.groupby("split"):
        typer.echo(f"{split}: {of_split.exported.sum():,} captions")
    counts = regions.state[~regions.state.isin(states)].value_counts()
    if left_out := ", ".join(f"{count:,} {state}" for state, count in counts.items()):
        typer.echo(f"left out: {left_out} regions; left_out.jsonl has the reasons", err=True)
    typer.echo(f"data set: {out}")
    if exported.unfinished:
        typer.echo(f"{exported.unfinished:,} images of the store are not in it", err=True)
    if not regions.exported.any():
        reasons = regions.reason.dropna().value_counts()
        why = f", for reasons such as: {reasons.index[0]}" if len(reasons) else ""
        typer.echo(f"ureca: no caption is {' or '.join(states)}{why}; see --include", err=True)
        raise typer.Exit(1)


def _per_split(values: list[str] | None) -> dict[str, str]:
    """`["a", "test=b"]` -> `{"": "a", "test": "b"}`."""
    found: dict[str, str] = {}
    for value in values or []:
        split, separator, rest = value.partition("=")
        # an address may hold "=" itself
        key, text = (split, rest) if separator and split.isidentifier() else ("", value)
        if key in found:
            raise ValueError(f"{value!r}: given twice for {key or 'all splits'}")
        found[key] = text
    return found


def _features(dino: str | None, device: str | None) -> RegionFeatures | None:
    if dino is None:
        return None
    from ureca_lib.annotate.look_alikes import DinoFeatures

    return DinoFeatures(dino, chosen_device(device))
