"""`ureca annotate`, `ureca status`, `ureca look-alikes` and `ureca export`."""

from __future__ import annotations

import inspect
import io
import json
import re
from collections.abc import Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from filelock import FileLock, Timeout

from ureca_lib.annotate import PAPER_DIFFERENCES
from ureca_lib.chat import KEY_HELP
from ureca_lib.chat_options import with_chat_options
from ureca_lib.devices import DEVICE_HELP, chosen_device
from ureca_lib.engine import Progress, map_tasks, usable_cores

if TYPE_CHECKING:
    from ureca_lib.annotate.look_alikes import RegionFeatures

_STORE = "The store, an SQLite file, or a folder of shards."
_PER_SPLIT = "May be repeated as SPLIT=VALUE."
_OF_ALL = ("shards", "jobs", "engine", "ray_address", "gpus")  # options that no shard takes
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
def annotate(
    ctx: typer.Context,
    chat: dict[str, Any],
    images: _Images,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The store, an SQLite file; with --shards their folder."),
    ],
    annotator: Annotated[
        list[str] | None,
        typer.Option(help=f"attributes (default; no model), openai or transformers. {_PER_SPLIT}"),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help=f"Name, hub id or folder of the model. {_PER_SPLIT}")
    ] = None,
    base_url: Annotated[
        list[str] | None,
        typer.Option(help=f"Address of an OpenAI-compatible server. {_PER_SPLIT}"),
    ] = None,
    api_key_env: Annotated[list[str] | None, typer.Option(help=f"{KEY_HELP} {_PER_SPLIT}")] = None,
    device: _Device = None,
    split: Annotated[
        str,
        typer.Option(help="Split of all images, NAME=SHARE, or a JSON file {file name: split}."),
    ] = "train",
    rounds: Annotated[
        int | None, typer.Option(help="Most refinements of a region, 3 by default; --paper: 1.")
    ] = None,
    paper: Annotated[
        bool, typer.Option(help="The published rules: main objects, one round, verified test set.")
    ] = False,
    verify: Annotated[
        list[str] | None, typer.Option(help="A split that is verified; may be repeated.")
    ] = None,
    verifier_model: Annotated[
        str | None, typer.Option(help="Model that verifies, at OpenAI or --verifier-url.")
    ] = None,
    verifier_url: Annotated[
        str | None, typer.Option(help="Address of the server that verifies.")
    ] = None,
    verifier_key_env: Annotated[
        str | None, typer.Option(help="The same as --api-key-env, for the server that verifies.")
    ] = None,
    dino: _Dino = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Cosine similarity of look-alikes; see ureca look-alikes."),
    ] = None,
    in_flight: Annotated[int | None, typer.Option(help="Most calls at a time.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="A file or folder of the photos' masks; else beside them.")
    ] = None,
    use_boxes: Annotated[
        bool, typer.Option("--use-boxes", help="Read boxes as regions where a file has no masks.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="A bad mask fails its image; --no-strict leaves it out.")
    ] = True,
    retry_failed: Annotated[
        bool, typer.Option(help="Ask again what failed in an earlier run.")
    ] = True,
    wait: Annotated[
        bool,
        typer.Option(help="Wait for images that another process has; --no-wait leaves them."),
    ] = True,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Deal the images out to so many stores, each annotated in a process of its own. "
            "Several addresses URL,URL are dealt out to the shards.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "-j", "--jobs", min=1, help="Shards at a time; default: one per core; on Ray all."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="processes of this machine, or ray: also on other machines.")
    ] = "processes",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster; default: RAY_ADDRESS, else on this machine."
        ),
    ] = None,
    gpus: Annotated[
        float, typer.Option(help="GPUs of each shard on Ray; 0.5: two shards share one.")
    ] = 0,
    part: Annotated[bool, typer.Option(hidden=True)] = False,  # the images are those of a shard
) -> None:
    """Caption every region of the images uniquely; resumes where an earlier run stopped.

    \b
    ureca annotate photos/ --out captions.sqlite --annotator openai --model gpt-4o
    ureca annotate photos/ --out stores/ --shards 8 --engine ray
    """
    if shards:
        annotate_shards(ctx.params)
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


def annotate_shards(options: Mapping[str, Any]) -> None:
    """Annotate the images of a run in shards, and print a line per shard.

    Args:
        options: all options of `ureca annotate`, by their names as parameters.

    Raises:
        typer.Exit: a shard failed, or is not complete; the others are finished.
    """
    from ureca_lib.annotate.shards import deal_images
    from ureca_lib.annotate.sources import SplitRule

    out, engine = Path(options["out"]), options["engine"]
    rule = SplitRule.parse(options["split"])
    images = _with_masks(options["images"], options["masks"])
    dealt = deal_images(images, out, options["shards"], rule)
    shared = {name: value for name, value in options.items() if name not in _OF_ALL}
    tasks = []
    for number, (store, files) in enumerate(dealt.items()):
        task = {**shared, "out": store, "images": files, "progress": False, "part": True}
        task["masks"] = None  # they are named with the images
        task["base_url"] = [_dealt(text, number) for text in options["base_url"] or []]
        task["verifier_url"] = options["verifier_url"] and _dealt(options["verifier_url"], number)
        tasks.append(json.loads(json.dumps(task, default=str)))
    out.mkdir(parents=True, exist_ok=True)
    report, left = Progress(len(tasks), options["progress"]), 0
    named = ((Path(task["out"]).name, task) for task in tasks)
    # on this machine a shard per core, on a cluster all that it has room for
    jobs = options["jobs"] or (len(tasks) if engine == "ray" else usable_cores())
    place = (engine, options["ray_address"])
    with closing(
        map_tasks(annotate_shard, report.begun(named), jobs, *place, gpus=options["gpus"])
    ) as outcomes:
        for task, ended, error, where in outcomes:
            name = Path(task["out"]).name
            summary, said, complete = ("failed", error, False) if error else ended
            left += not complete
            report.ended(f"{name}: {summary} ({where or 'lost'})")
            for line in said.splitlines():  # warnings and failures
                typer.echo(f"{name}: {line}", err=True)
    typer.echo(f"{len(tasks) - left} of {len(tasks)} shards are complete\nstores: {out}")
    if left:
        typer.echo(f"See `ureca status {out}`; rerun the command to resume.", err=True)
        raise typer.Exit(1)


def annotate_shard(task: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Annotate one shard by `ureca annotate`; a process of the engine calls this.

    Args:
        task: options of the command.

    Returns:
        The command's summary, its messages, and whether the shard is complete.

    Raises:
        ValueError: another process, perhaps of another machine, is annotating the shard.
    """
    summary, said, complete = io.StringIO(), io.StringIO(), True
    try:
        with (
            # the system frees the lock when this process ends, however it ends
            FileLock(f"{task['out']}.lock", timeout=0),
            redirect_stdout(summary),
            redirect_stderr(said),
        ):
            annotate(ctx=None, **task)
    except Timeout:
        raise ValueError(f"{task['out']}: another process is annotating this shard") from None
    except typer.Exit:
        complete = False
    return summary.getvalue().partition("\n")[0], said.getvalue(), complete


def _dealt(text: str, number: int) -> str:
    """`test=URL,URL` -> `test=URL`: addresses are dealt out to the shards in turn."""
    split, addresses = re.fullmatch(r"(\w+=)?(.*)", text).groups(default="")
    choices = addresses.split(",")
    return split + choices[number % len(choices)]


def _with_masks(images: list[Path], masks: Path | None) -> list[Path]:
    """`PHOTOS@MASKS` of each, if the masks are elsewhere."""
    return images if masks is None else [Path(f"{path}@{masks.absolute()}") for path in images]


def look_alikes(
    images: _Images,
    dino: _Dino = None,
    threshold: Annotated[
        float | None, typer.Option(help="Cosine similarity; default: the features' own.")
    ] = None,
    family: Annotated[
        bool, typer.Option(help="Include pairs of which one holds the other, as --paper does.")
    ] = False,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Histogram, and the pairs near the threshold.")
    ] = Path("look_alikes.png"),
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


def status(store: Annotated[Path, typer.Argument(help=_STORE)]) -> None:
    """Show the content of a store: counts by stage and state, failures, rate, time left."""
    from ureca_lib.annotate.progress import read_status
    from ureca_lib.annotate.shards import Shards, open_store

    with open_store(store) as opened:
        found = opened.status() if isinstance(opened, Shards) else read_status(opened)
        typer.echo(str(found))


def export(
    store: Annotated[
        str,
        typer.Argument(
            help=f"{_STORE} With --format also predictions, captions of `ureca caption`, or data "
            "with captions."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the data set.")],
    tool: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Files for a tool instead of a data set: coco, label-studio, cvat or fiftyone.",
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="With --format: text before the photos' names, such as an address.")
    ] = "",
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Captions of another state in JSONL and COCO too, marked with it: unresolved, "
            "dropped or failed. May be repeated."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the data card.")] = "A URECA data set",
    image_license: Annotated[str | None, typer.Option(help="Terms of the photos.")] = None,
    mask_license: Annotated[str | None, typer.Option(help="Terms of the masks.")] = None,
    caption_license: Annotated[str | None, typer.Option(help="Terms of the captions.")] = None,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Captions of several settings together; the card says so."),
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
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
