"""`ureca table`: a table of the paper, with what was measured here below what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("markdown", "latex", "html", "csv")


def table(
    number: Annotated[int, typer.Argument(help="2 to 6.")],
    records: Annotated[
        list[str] | None,
        typer.Argument(
            help="What `ureca evaluate`, `clair` and `uniqueness` wrote. For Table 6 "
            "refcocog=FILE and visual_genome=FILE."
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="markdown, latex, html, or csv: a line a cell.")
    ] = "markdown",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: the screen.")] = None,
    intervals: Annotated[bool, typer.Option(help="Show 95% intervals of measured rows.")] = False,
    ours: Annotated[bool, typer.Option(help="Add columns that the paper does not have.")] = True,
) -> None:
    """Print a table of the paper with measured rows; no figure is without its source."""
    from ureca_lib.evaluate.measured_rows import read_tables
    from ureca_lib.evaluate.table_texts import html, latex, markdown
    from ureca_lib.journal import write_text

    try:
        if form not in FORMATS:
            raise ValueError(f"--format is one of {', '.join(FORMATS)}, not {form!r}")
        content = read_tables(number, records or [], ours)
        if form == "csv":
            text = content.cells_frame().to_csv(index=False)
        else:
            write = {"markdown": markdown, "latex": latex, "html": html}[form]
            text = write(content, intervals)
        if out is not None:
            write_text(out, text)
    except (ValueError, OSError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(2) from None
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"Table {number} -> {out}", err=True)
