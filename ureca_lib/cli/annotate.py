"""`ureca annotate`, `ureca status`, `ureca look-alikes` and `ureca export`."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ureca_lib.annotate import PAPER_DIFFERENCES
from ureca_lib.chat import KEY_HELP
from ureca_lib.chat_options import with_chat_options
from ureca_lib.devices import DEVICE_HELP, chosen_device

if TYPE_CHECKING:
    from ureca_lib.annotate.look_alikes import RegionFeatures
    from ureca_lib.annotate.protocol import Annotator
    from ureca_lib.annotate.settings import PipelineSettings
    from ureca_lib.annotate.sources import SplitRule

_STORE = "The store, an SQLite file, or a folder of shards."
_PER_SPLIT = "May be repeated as SPLIT=VALUE."


@with_chat_options()
def annotate(
    ctx: typer.Context,
    chat: dict[str, Any],
    images: Annotated[
        list[Path],
        typer.Argument(help="SA-1B JSON files, folders of them, or photos with a JSON beside."),
    ],
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
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
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
    dino: Annotated[
        str | None,
        typer.Option(
            help="DINOv2 or DINOv3 (hub id or folder) for look-alikes, instead of color and shape."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Cosine similarity of look-alikes; see ureca look-alikes."),
    ] = None,
    in_flight: Annotated[int | None, typer.Option(help="Most calls at a time.")] = None,
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
        from ureca_lib.cli.shards import annotate_shards

        annotate_shards(ctx.params)
        return
    from ureca_lib.annotate.annotators import make_annotator
    from ureca_lib.annotate.run import annotate_images
    from ureca_lib.annotate.sources import SplitRule

    rule = SplitRule.parse(split)
    options = [_per_split(values) for values in (annotator, model, base_url, api_key_env)]
    settings = _settings(paper, rounds, tuple(verify or ()), strict, retry_failed)
    alike = replace(settings.look_alikes, threshold=threshold)
    settings = replace(settings, look_alikes=alike)
    asked = {*(verify or ()), *(key for option in options for key in option if key)}
    _check_splits(rule, asked)
    _check_verifier(rule, settings, verifier_model, verifier_url)
    verifier = None
    if verifier_model:
        verifier = make_annotator(
            "openai",
            verifier_model,
            verifier_url,
            api_key_env=verifier_key_env,
            in_flight=in_flight or None,
            **chat,
        )
    asks = verifier is not None or {*options[0].values()} & {"openai", "transformers"}
    if chat and not asks:
        raise ValueError(f"{', '.join(chat)}: no model is asked; give --annotator openai")
    served = verifier is not None or "openai" in options[0].values()
    summary = annotate_images(
        images,
        out,
        _OfSplits(options, device, in_flight, served, chat),
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


def look_alikes(
    images: Annotated[
        list[Path],
        typer.Argument(help="SA-1B JSON files, folders of them, or photos with a JSON beside."),
    ],
    dino: Annotated[
        str | None,
        typer.Option(help="DINOv2 or DINOv3 (hub id or folder), instead of color and shape."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Cosine similarity; default: the features' own.")
    ] = None,
    family: Annotated[
        bool, typer.Option(help="Include pairs of which one holds the other, as --paper does.")
    ] = False,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Histogram, and the pairs near the threshold.")
    ] = Path("look_alikes.png"),
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
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
    store: Annotated[Path, typer.Argument(help=_STORE)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the data set.")],
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
    """Write a store's captions as a data set: JSONL, Parquet, COCO and a data card."""
    from ureca_lib.annotate.card import CardTexts
    from ureca_lib.annotate.export import export_dataset

    texts = CardTexts(title, image_license, mask_license, caption_license)
    states = tuple(dict.fromkeys(("unique", *(include or ()))))
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
        typer.echo(f"ureca: no caption is {' or '.join(states)}; see --include", err=True)
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


class _OfSplits(dict):
    """Annotators by split, made when they are first asked for."""

    def __init__(
        self,
        options: list[dict[str, str]],
        device: str | None,
        in_flight: int | None,
        served: bool,  # some are servers: in_flight may be meant for these
        chat: dict[str, Any],
    ):
        super().__init__()
        self._options, self._device, self._chat = options, device, chat
        self._in_flight, self._served = in_flight, served

    def get(self, split: str, default: object = None) -> Annotator:
        """Return the split's annotator, or that of all splits; equal options share one."""
        from ureca_lib.annotate.annotators import make_annotator

        found = (option.get(split, option.get("")) for option in self._options)
        kind, model, url, key_variable = found
        asked = (kind or "attributes", model, url, self._device, key_variable)
        if asked not in self:
            settings = {} if asked[0] == "attributes" else self._chat
            made = make_annotator(*asked, self._in_flight, **settings)
            if not self._served:
                _check_in_flight(made, self._in_flight)
            self[asked] = made
        return self[asked]


def _check_in_flight(annotator: Annotator, in_flight: int | None) -> None:
    """Raise ValueError if more calls at a time are wanted than will be made."""
    most = annotator.max_in_flight
    if in_flight is not None and in_flight > most:
        raise ValueError(f"{annotator.name} takes at most {most} calls at a time (--in-flight)")


def _features(dino: str | None, device: str | None) -> RegionFeatures | None:
    if dino is None:
        return None
    from ureca_lib.annotate.look_alikes import DinoFeatures

    return DinoFeatures(dino, chosen_device(device))


def _check_splits(rule: SplitRule, asked: set[str]) -> None:
    """Raise ValueError if an option is for a split that no image can be in."""
    if unknown := sorted(asked - rule.names):
        known = ", ".join(sorted(rule.names))
        raise ValueError(f"no image is in the split {unknown[0]!r}; --split gives {known}")


def _check_verifier(
    rule: SplitRule, settings: PipelineSettings, model: str | None, url: str | None
) -> None:
    """Raise ValueError if a verifier is given that would never be asked."""
    if url and not model:
        raise ValueError("--verifier-url goes with a --verifier-model")
    if model and not rule.names & {*settings.verify_splits}:
        raise ValueError("nothing is verified: --verifier-model goes with --verify SPLIT")


def _settings(
    paper: bool, rounds: int | None, verify: tuple[str, ...], strict: bool, retry_failed: bool
) -> PipelineSettings:
    from ureca_lib.annotate.settings import CheckSettings, PipelineSettings

    settings = PipelineSettings.paper() if paper else PipelineSettings()
    if paper and rounds not in (None, settings.check.rounds):
        raise ValueError(f"--paper is one round, not the {rounds} of --rounds")
    if rounds is not None:
        settings = replace(settings, check=CheckSettings(rounds=rounds))
    verify = tuple(sorted({*settings.verify_splits, *verify}))
    return replace(settings, verify_splits=verify, strict=strict, retry_failed=retry_failed)
