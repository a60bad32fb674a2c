"""`ureca caption` and `ureca segment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ureca_lib.devices import DEVICE_HELP

if TYPE_CHECKING:
    from ureca_lib.regions import RegionImage

FEW_PIECES = (4, 8, 16)  # superpixels by level for a photo without masks: few enough to name


def segment(
    image: Annotated[Path, typer.Argument(help="The photo.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="SA-1B JSON; default: beside the photo.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="superpixels (no model needed) or sam.")
    ] = "superpixels",
    model: Annotated[
        str, typer.Option(help="SAM checkpoint: hub id or local folder.")
    ] = "facebook/sam-vit-base",
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
) -> None:
    """Find nested masks in a photo and write them as SA-1B JSON."""
    from ureca_lib.regions import save_sa1b

    options = {"model": model, "device": device} if method == "sam" else {}
    found = _segmented(image, method, **options)
    target = output or image.with_suffix(".json")
    if output is None and target.exists():
        raise _stop(f"{target} exists; name another file with --output")
    save_sa1b(found, target, image.name)
    typer.echo(f"{len(found)} masks ({method}) -> {target}")


def caption(
    image: Annotated[Path, typer.Argument(help="The photo.")],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="SA-1B or COCO JSON, a label map PNG or a folder of mask PNGs. Default: the "
            "JSON beside the photo, else superpixels."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSONL; default: NAME.captions.jsonl.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw regions with their captions (.png, joined by a .pdf; .pdf; .svg)."),
    ] = None,
    shown: Annotated[int, typer.Option(help="Most regions in the figure, the largest.")] = 24,
    strict: Annotated[
        bool, typer.Option(help="Stop at a bad mask; --no-strict leaves it out and says so.")
    ] = True,
) -> None:
    """Caption every region of a photo uniquely, without a model, and write a data set."""
    from ureca_lib.annotate.annotators import AttributeAnnotator
    from ureca_lib.datasets import caption_rows, write_jsonl
    from ureca_lib.mask_tree import build_mask_tree
    from ureca_lib.regions import RegionError, load_regions

    beside = image.with_suffix(".json")
    target = output or image.with_suffix(".captions.jsonl")
    if target.is_dir():
        raise _stop(f"{target} is a folder; --output takes a file")
    if figure and figure.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise _stop(f"{figure}: a figure is .png, .pdf or .svg")
    try:
        if masks is None and not beside.is_file():
            regions = _segmented(image, "superpixels", levels=FEW_PIECES)
        else:
            regions = load_regions(masks or beside, image, strict)
        tree = build_mask_tree(regions)
        captions = AttributeAnnotator().caption(regions, tree)
    except RegionError as error:
        raise _stop(error) from None
    for item in regions.left_out:
        typer.echo(f"left out: {item}", err=True)
    write_jsonl(target, caption_rows(image.name, captions))
    for row in captions:
        typer.echo(f"{row.region_id}\t{row.text}")
    alike = sum(not row.unique for row in captions)
    typer.echo(f"{len(captions)} captions -> {target}", err=True)
    if alike:
        typer.echo(f"{alike} regions could not be told apart from others", err=True)
    if figure:
        from ureca_lib.figures import caption_figure, save_figure

        texts = {row.region_id: row.text for row in captions}
        largest = sorted(texts, key=lambda region_id: -regions[region_id].area)[:shown]
        save_figure(caption_figure(regions, texts, ids=largest), figure)
        typer.echo(f"figure -> {figure}", err=True)


def _segmented(image: Path, method: str, **options: Any) -> RegionImage:
    from ureca_lib.regions import RegionError
    from ureca_lib.segment import SegmentationUnavailable, segment_image

    try:
        return segment_image(image, method=method, **options)
    except (RegionError, SegmentationUnavailable, ValueError) as error:
        raise _stop(error) from None


def _stop(reason: Exception | str) -> typer.Exit:
    """Say why, on standard error, and end with status 2: the input is at fault."""
    typer.echo(f"ureca: {reason}", err=True)
    return typer.Exit(2)
