"""`ureca caption` and `ureca segment`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from tqdm.auto import tqdm

from ureca_lib.chat import KEY_HELP
from ureca_lib.devices import DEVICE_HELP
from ureca_lib.markdown import printable

if TYPE_CHECKING:
    from ureca_lib.captioning import PhotoCaptions
    from ureca_lib.regions import MaskedPhoto

_FIGURES = (".png", ".pdf", ".svg")
_SAM_HELP = "SAM, SAM-HQ, SAM 2 or SAM 3 checkpoint (hub id or folder)"


def caption(
    photos: list[Path] = typer.Argument(help="Photos, and folders of them (not those below)."),
    model: str | None = typer.Option(
        None,
        help="URECA checkpoint (hub id or folder; tiny: the shipped one), or the "
        "annotator's model. Default: the embedded annotator, which needs no model.",
    ),
    annotator: str | None = typer.Option(
        None, help="Run the four stages with openai, transformers or attributes."
    ),
    base_url: str | None = typer.Option(None, help="Address of an OpenAI-compatible server."),
    api_key_env: str | None = typer.Option(None, help=KEY_HELP),
    masks: Path | None = typer.Option(
        None,
        help="A file or folder of masks (`ureca data --formats` lists the formats), also of many "
        "photos. Default: those beside the photo, else SAM's (--sam), else superpixels.",
    ),
    point: list[str] | None = typer.Option(
        None,
        metavar="X,Y",
        help="Caption the region at this pixel: SAM's with --sam, else the smallest that "
        "holds it. May be repeated.",
    ),
    box: list[str] | None = typer.Option(
        None,
        metavar="X,Y,W,H",
        help="Caption the region in this box: SAM's with --sam, else the one that fits it "
        "best. May be repeated.",
    ),
    sam: str | None = typer.Option(None, help=f"{_SAM_HELP} for the masks."),
    out: Path | None = typer.Option(
        None, "-o", "--out", help="One JSONL file; default: NAME.captions.jsonl each."
    ),
    coco: Path | None = typer.Option(None, help="Also write COCO JSON with captions."),
    figure: Path | None = typer.Option(
        None,
        help="Draw numbered regions with their captions (.png, joined by a .pdf; .pdf; .svg), "
        "or a folder for many photos.",
    ),
    shown: int = typer.Option(24, help="Most regions in a figure, the largest."),
    check: bool = typer.Option(
        False,
        "--check",
        help="Add look-alikes, and whether each caption fits its region only; a URECA model "
        "judges its own captions.",
    ),
    together: bool | None = typer.Option(
        None,
        help="Regions that a URECA model gives the same caption choose again; ours, not the "
        "paper's. Default: where all regions are captioned. With points and boxes all are "
        "captioned for it, and those asked for printed.",
        show_default=False,
    ),
    strict: bool = typer.Option(
        True, help="Stop at a bad mask; --no-strict leaves it out and says so."
    ),
    use_boxes: bool = typer.Option(
        False, "--use-boxes", help="Read boxes as regions where a file has no masks."
    ),
    device: str | None = typer.Option(None, help=DEVICE_HELP),
) -> None:
    """Caption the regions of photos with a URECA model, an annotator, or no model at all.

    \b
    ureca caption photo.jpg --figure out.png
    ureca caption photo.jpg --model tiny --point 200,200 -o out.jsonl
    ureca caption photos/ --annotator openai --model gpt-4o --coco out.json
    """
    from ureca_lib.annotate.export import write_jsonl
    from ureca_lib.captioning import PhotoCaptioner
    from ureca_lib.journal import replacing
    from ureca_lib.tool_files import coco_document

    names = _named(photos)
    single = len(names) == 1
    points = [_numbers(text, 2, "--point X,Y") for text in point or []]
    boxes = [_numbers(text, 4, "--box X,Y,W,H") for text in box or []]
    _check_targets(single, out, figure, bool(points or boxes))
    owners = _masks_of(photos, masks, list(names), sam)
    captioner = PhotoCaptioner(
        model, annotator, base_url, api_key_env, sam, device, check, single, together=together
    )
    for line in filter(None, (f"captions by {captioner.made_by}", captioner.note)):
        typer.echo(line, err=True)
    done: dict[Path, PhotoCaptions] = {}
    # photo after photo; one that fails does not stop the others
    for photo, name in tqdm(names.items(), unit="photo", disable=single):
        found = owners.get(photo)
        try:
            result = captioner.caption(photo, found, points, boxes, strict, name, use_boxes)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            about = str(error) if photo.name in str(error) else f"{photo}: {error}"
            tqdm.write(printable(f"ureca: {about}"), file=sys.stderr)
            continue
        done[photo] = result
        head = [] if single else [result.image]
        for line in (*head, *result.lines()):
            tqdm.write(printable(line))
        for line in result.left_out:
            tqdm.write(printable(line), file=sys.stderr)
        if figure and len(result):
            from ureca_lib.figures import save_figure

            target = figure if single else figure / f"{photo.stem}.png"
            typer.echo(f"figure -> {save_figure(result.figure(shown), target)}", err=True)
        if out is None:
            write_jsonl(photo.with_suffix(".captions.jsonl"), result.rows())
    if out is not None:
        write_jsonl(out, (row for result in done.values() for row in result.rows()))
    for photo, result in done.items():
        count = f"{len(result)} caption{'' if len(result) == 1 else 's'}"
        if shared := sum(row.unique is False for row in result):
            count += f", {shared} not unique"
        if chosen := sum(row.instead_of is not None for row in result):
            count += f", {chosen} chosen again as another region said the same"
        typer.echo(f"{count} -> {out or photo.with_suffix('.captions.jsonl')}", err=True)
    if coco and done:
        with replacing(coco) as file:
            json.dump(coco_document(result.captioned() for result in done.values()), file)
    if single and not done:
        raise typer.Exit(2)
    if len(done) < len(names) or not all(map(len, done.values())):
        typer.echo(f"{len(done)} of {len(names)} photos captioned", err=True)
        raise typer.Exit(1)


def segment(
    image: Path = typer.Argument(help="The photo."),
    out: Path | None = typer.Option(
        None, "-o", "--out", help="SA-1B JSON; default: beside the photo."
    ),
    method: str = typer.Option("superpixels", help="superpixels (no model needed) or sam."),
    model: str = typer.Option("facebook/sam-vit-base", help=f"{_SAM_HELP} for --method sam."),
    device: str | None = typer.Option(None, help=DEVICE_HELP),
) -> None:
    """Find nested masks in a photo and write them as SA-1B JSON."""
    from ureca_lib.regions import save_sa1b
    from ureca_lib.segment import segment_image

    target = out or image.with_suffix(".json")
    if out is None and target.exists():
        raise ValueError(f"{target} exists; name another file with --out")
    options = {"model": model, "device": device} if method == "sam" else {}
    regions = segment_image(image, method, **options)
    if not len(regions):
        raise ValueError(f"{image}: {model} finds no masks; try other settings or superpixels")
    save_sa1b(regions, target, image.name)
    typer.echo(f"{len(regions)} masks ({method}) -> {target}")


def _named(paths: list[Path]) -> dict[Path, str]:
    """Return photos, also those in folders, with their names in the output."""
    from ureca_lib.regions.photo import PHOTO_SUFFIXES

    names: dict[Path, str] = {}
    for path in paths:
        files = [path]
        if path.is_dir():
            there = (file for file in sorted(path.iterdir()) if not file.name.startswith("."))
            files = [file for file in there if file.suffix.lower() in PHOTO_SUFFIXES]
        if not files:
            raise ValueError(f"{path}: the folder holds no photos ({', '.join(PHOTO_SUFFIXES)})")
        names |= {file: file.name for file in files}
    if len(set(names.values())) < len(names):
        raise ValueError("two photos have the same file name; caption them in separate commands")
    return names


def _masks_of(
    paths: list[Path], masks: Path | None, photos: list[Path], sam: str | None
) -> dict[Path, MaskedPhoto]:
    """The masks of photos, each with its photo; says what happens with the photos without."""
    from ureca_lib.regions.sources import find_masked, shortened

    owners: dict[Path, MaskedPhoto] = {}
    for path in filter(Path.exists, paths):
        found = find_masked(path, masks, deep=False).owners
        owners |= {photo: entry._replace(photo=photo) for photo, entry in found.items()}
    if masks is None and (others := {e.path.name for e in owners.values() if e.name}):
        typer.echo(f"masks of {', '.join(sorted(others))}", err=True)
    if owners and (without := [photo.name for photo in photos if photo not in owners]):
        count = f"{len(without)} of {len(photos)} photos have no masks"
        typer.echo(f"{count}: {shortened(without)}; {sam or 'superpixels'} instead", err=True)
    return owners


def _numbers(text: str, count: int, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise ValueError(f"{text!r}: {option} takes {count} numbers of pixels, such as 200,150")
    return numbers


def _check_targets(single: bool, out: Path | None, figure: Path | None, prompted: bool) -> None:
    """Refuse outputs and options that do not fit the photos, before a model is loaded."""
    suffix, many = figure.suffix.lower() if figure else "", not single
    faults = {
        f"{out} is a folder; --out takes a file": out and out.is_dir(),
        f"{figure}: a figure is {', '.join(_FIGURES)}": single
        and figure
        and suffix not in _FIGURES,
        f"{figure}: for several photos --figure takes a folder": many and suffix,
        "--point and --box go with one photo": many and prompted,
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ValueError(fault)
