"""`ureca clair`: a language model's judgement of a predictions file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from ureca_lib.chat import KEY_HELP
from ureca_lib.chat_options import with_chat_options
from ureca_lib.devices import DEVICE_HELP


@with_chat_options()
def clair(
    chat: dict[str, Any],
    predictions: Annotated[Path, typer.Argument(help="Predictions, JSONL.")],
    judge: Annotated[
        str,
        typer.Option(
            help="openai (any OpenAI-compatible server), transformers (here), or none, which "
            "reads the log of an earlier run."
        ),
    ] = "none",
    model: Annotated[str | None, typer.Option(help="Name, hub id or folder of the judge.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of the server, up to /v1; default: OpenAI's.")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help=KEY_HELP)] = None,
    refs: Annotated[
        str | None, typer.Option(help="References, as `ureca evaluate` takes them.")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="JSONL of the replies, appended to; default: NAME.clair.jsonl."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON; default: NAME.clair.json.")
    ] = None,
    tries: Annotated[int, typer.Option(help="Most replies to a question; the paper: 3.")] = 3,
    samples: Annotated[int, typer.Option(help="Resamples for the intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Score predictions by CLAIR; resumes where an earlier run stopped."""
    from ureca_lib.chat import AnnotatorUnavailableError
    from ureca_lib.evaluate.bootstrap import BootstrapSettings
    from ureca_lib.evaluate.clair import ClairSettings, JudgeStoppedError, make_judge
    from ureca_lib.journal import write_json

    log = log or predictions.with_suffix(".clair.jsonl")
    target = out or predictions.with_suffix(".clair.json")
    try:
        settings = ClairSettings(tries, BootstrapSettings(samples=samples, seed=seed), progress)
        asked = make_judge(judge, model, base_url, device, api_key_env, **chat)
        record, text = judge_predictions(predictions, refs, asked, log, settings)
        write_json(target, record)
    except (ValueError, OSError, ImportError, AnnotatorUnavailableError) as error:
        raise _stop(error, 2) from None
    except JudgeStoppedError as error:
        raise _stop(error, 1) from None
    typer.echo(text)
    typer.echo(f"all figures -> {target}", err=True)


def judge_predictions(
    predictions: Path, refs: str | None, judge: Any, log: Path, settings: Any
) -> tuple[dict[str, Any], str]:
    """The record of a judged predictions file, as `ureca table` reads it, and its score as text.

    Args:
        predictions: the file.
        refs: of `read_references`; None takes those in the file.
        judge: a `Judge`, or None.
        log: of its replies.
        settings: `ClairSettings`.

    Raises:
        ValueError, OSError: predictions, references or log at fault.
        JudgeStoppedError: the judge answers no more.
    """
    from ureca_lib.datasets.references import read_references
    from ureca_lib.evaluate.clair import score_clair
    from ureca_lib.evaluate.evaluation import MISSING, evaluate

    references = read_references(refs) if refs else None
    found = evaluate(predictions, references, ())
    rows = [row for row in found.rows if row.references]
    if not rows:
        raise ValueError(f"{predictions}: CLAIR needs references: give --refs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the coverage tells of missing ids
        score = score_clair(
            {row.id: row.caption for row in rows if not row.extra.get(MISSING)},
            {row.id: list(row.references) for row in rows},
            judge,
            log,
            {row.id: row.image_id for row in rows},
            settings,
        )
    told = [f"{found.system}: {len(rows):,} captions", f"  {score}", *found.messages()]
    counts = {name: score.settings.get(name) for name in ("unread", "unanswered", "empty")}
    told += [f"  {name}: {number:,}" for name, number in counts.items() if number]
    return found.to_dict() | {"metrics": {"clair": score.as_record()}}, "\n".join(told)


def _stop(reason: Exception, status: int) -> typer.Exit:
    """Say why, on standard error: 2 where the input is at fault, 1 where going on may help."""
    typer.echo(f"ureca: {reason}", err=True)
    return typer.Exit(status)
