"""`ureca predict`, `evaluate`, `clair`, `uniqueness`, `table` and `agreement`.

Errors of the input pass through: the `ureca` command prints them in one line and exits with 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import typer

from ureca_lib.chat import KEY_HELP, with_chat_options
from ureca_lib.devices import DEVICE_HELP
from ureca_lib.engine import ShardOptions, call_command, dealt, run_parts
from ureca_lib.evaluate.settings import (
    BootstrapSettings,
    ClairSettings,
    MetricSettings,
    ReproductionSettings,
    SystemOptions,
    UniquenessSettings,
)
from ureca_lib.journal import write_json, write_text
from ureca_lib.options import options_of

_SYSTEM = tuple(name for name in SystemOptions.__dataclass_fields__ if name != "server")
_DRAWS = ("samples", "seed")
_METRICS = ("tokenizer", "meteor", "wordnet", "bertscore_model", "device")


def _exit_1(reason: str | None) -> NoReturn:
    """Exit with status 1: nothing was predicted or scored."""
    typer.echo(f"ureca: {reason}", err=True)
    raise typer.Exit(1)


def _report(target: Path, record: Mapping[str, Any], text: str) -> None:
    """Write a record of scores, and show a text about them."""
    write_json(target, record)
    typer.echo(text)
    typer.echo(f"all scores -> {target}", err=True)


@with_chat_options("max_reply_tokens")  # --max-new-tokens
@options_of(SystemOptions, *_SYSTEM, system="ureca", device=None)
@options_of(ShardOptions, into="engine")
def predict(
    ctx: typer.Context,
    chat: dict[str, Any],
    data: str = typer.Option(
        help="scenes:test:500, a folder of scenes, a JSONL of the published layout (JSONL@MASKS), "
        "an export, photos with masks, or files of masks (PHOTOS@MASKS: elsewhere)."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="Predictions, NAME.jsonl."),
    trained_on: str | None = typer.Option(
        None, help="Training data of the system, for the tables."
    ),
    masks: Path | None = typer.Option(None, help="Folder of a JSONL's or of photos' masks."),
    use_boxes: bool = typer.Option(
        False, "--use-boxes", help="Read boxes as regions where a file has no masks."
    ),
    style: str = typer.Option("phrase", help="References of scenes: phrase, minimal or sentence."),
    limit: int | None = typer.Option(None, help="Number of images; the first ones are taken."),
    strict: bool = typer.Option(True, help="Stop at a bad mask; --no-strict leaves it out."),
    retry_failed: bool = typer.Option(False, help="Ask again where an error left no caption."),
    progress: bool = typer.Option(True, help="Show a bar."),
    part: list[int] | None = typer.Option(None, hidden=True),
    *,
    engine: ShardOptions,
    **given: Any,
) -> None:
    """Caption every region of some data; resumes an interrupted run.

    \b
    ureca predict --data scenes:test:500 --model tiny -o P.jsonl
    ureca predict --data test.jsonl@sa1b/ --model 8b/ -o P.jsonl --shards 8 --engine ray --gpus 1
    """
    from ureca_lib.datasets.captioned import open_captioned
    from ureca_lib.evaluate import predict as predicting
    from ureca_lib.evaluate.systems import build_system

    images = open_captioned(data, limit, style, masks, strict, boxes=use_boxes)  # type: ignore[arg-type]
    if engine.shards and not part:
        predicting.join_predictions(out, images)  # of a run that was killed
        left = _run_shards(predict_part, ctx.params, engine)
        count = predicting.join_predictions(out, images)
        typer.echo(f"{count:,} captions of {len(images):,} images -> {out}")
        if left or not count:
            _exit_1(f"{left} of {engine.shards} shards are not complete; rerun the command")
        return
    addresses = given["base_url"]
    given["base_url"] = dealt(addresses, part[0] if part else 0)
    built = build_system(**given, server=chat)
    if given["base_url"] != addresses:  # the parts of a run have one record
        built.model = {**(built.model or {}), "server": addresses}
    opened = {"style": style, "masks": None if masks is None else str(masks), "strict": strict}
    if use_boxes:
        opened["use_boxes"] = True
    summary = predicting.predict(
        built, images, out, trained_on, given["seed"], opened, retry_failed, progress, part
    )
    typer.echo(
        f"{summary.predictions:,} captions ({summary.made:,} new) of {summary.images:,} images, "
        f"{summary.seconds:g} s -> {out}"
    )
    for problem, reasons in (("no caption", summary.failed), ("not read", summary.unread)):
        if reasons:
            first, reason = next(iter(reasons.items()))
            typer.echo(f"{problem}: {len(reasons):,}, such as {first}: {reason}", err=True)
    if not summary.predictions and not part:
        _exit_1("nothing was predicted: no image could be read, or none has a region")
    if not summary.complete:
        raise typer.Exit(1)


def predict_part(task: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Caption a part of the images by `ureca predict`; a process of the engine calls this."""
    return call_command(predict, {"ctx": None, **task["options"]})


def _run_shards(function: Any, options: Mapping[str, Any], engine: ShardOptions) -> int:
    """Run a command on parts of its images; see `run_parts`."""
    count, quiet = engine.shards or 1, {"progress": False}
    tasks = {f"shard {k}": {**options, **quiet, "part": (k, count)} for k in range(count)}
    return run_parts(function, tasks, engine, options["progress"])


@options_of(MetricSettings, *_DRAWS, *_METRICS, device=None)
def evaluate(
    predictions: Path = typer.Argument(help="Predictions, JSONL."),
    refs: str | None = typer.Option(
        None,
        help="References: JSON {id: texts}, JSONL, or data as `ureca predict` takes it; default: "
        "those in the predictions.",
    ),
    metrics: str = typer.Option(
        "bleu,rouge_l,meteor,cider",
        help="Some of bleu,rouge_l,meteor,cider,bertscore; all, or none. bertscore needs a model.",
    ),
    compare: Path | None = typer.Option(
        None, help="Other predictions of the same regions, compared in pairs."
    ),
    out: Path | None = typer.Option(None, "-o", "--out", help="JSON; default: NAME.scores.json."),
    **given: Any,
) -> None:
    """Score predictions of any system: exact, unique, and the paper's metrics."""
    from ureca_lib.datasets.references import read_references
    from ureca_lib.evaluate import evaluation as scoring
    from ureca_lib.evaluate.metrics import METRICS

    settings = MetricSettings(**given)
    named = {"all": METRICS, "none": ()}
    chosen = named.get(metrics, tuple(filter(None, metrics.split(","))))
    asked = (read_references(refs) if refs else None, chosen, settings)
    found = scoring.evaluate(predictions, *asked)
    compared = None if compare is None else scoring.compare(found, compare, *asked)
    target = out or predictions.with_suffix(".scores.json")
    kept = scoring.write_scores(target, found, compared)
    for message in found.messages():
        typer.echo(message, err=True)
    typer.echo(str(found))
    if compared is not None:
        typer.echo(str(compared))
    if kept:
        typer.echo(f"kept from an earlier run: {', '.join(kept)}", err=True)
    typer.echo(f"all scores -> {target}", err=True)
    reasons = [score.reason for score in found.scores.values()]
    if all(reasons):
        first = (reasons or ["there are neither references (--refs) nor scenes"])[0]
        _exit_1(f"nothing was scored: {first}")


@with_chat_options()
@options_of(ClairSettings, *_DRAWS, "tries", "progress")
def clair(
    chat: dict[str, Any],
    predictions: Path = typer.Argument(help="Predictions, JSONL."),
    judge: str = typer.Option(
        "none",
        help="openai (any OpenAI-compatible server), transformers (here), or none, which reads the "
        "log of an earlier run.",
    ),
    model: str | None = typer.Option(None, help="Name, hub id or folder of the judge."),
    base_url: str | None = typer.Option(
        None, help="Address of the server, up to /v1; default: OpenAI's."
    ),
    api_key_env: str | None = typer.Option(None, help=KEY_HELP),
    refs: str | None = typer.Option(None, help="References, as `ureca evaluate` takes them."),
    log: Path | None = typer.Option(
        None, help="JSONL of the replies, appended to; default: NAME.clair.jsonl."
    ),
    out: Path | None = typer.Option(None, "-o", "--out", help="JSON; default: NAME.clair.json."),
    device: str | None = typer.Option(None, help=DEVICE_HELP),
    **given: Any,
) -> None:
    """Score predictions by CLAIR; resumes an interrupted run."""
    from ureca_lib.chat import AnnotatorUnavailableError, BudgetSpentError
    from ureca_lib.datasets.references import read_references
    from ureca_lib.evaluate.clair import make_judge, score_clair
    from ureca_lib.evaluate.evaluation import captions_of, evaluate

    log = log or predictions.with_suffix(".clair.jsonl")
    settings = ClairSettings(**given)
    asked = make_judge(judge, model, base_url, device=device, api_key_env=api_key_env, **chat)
    found = evaluate(predictions, read_references(refs) if refs else None, ())
    captions, references, images = captions_of(found.rows)
    if not references:
        raise ValueError(f"{predictions}: CLAIR needs references: give --refs")
    try:
        score = score_clair(captions, references, asked, log, images, settings)
    except (AnnotatorUnavailableError, BudgetSpentError) as error:
        _exit_1(str(error))
    score = replace(score, missing=len(found.missing))
    lines = [f"{found.system}: {len(references):,} captions", f"  {score}", *found.messages()]
    counts = {name: score.settings.get(name) for name in ("unread", "unanswered", "empty")}
    lines += [f"  {name}: {number:,}" for name, number in counts.items() if number]
    record = found.to_dict() | {"metrics": {"clair": score.as_record()}}
    _report(out or predictions.with_suffix(".clair.json"), record, "\n".join(lines))
    if score.value is None:
        _exit_1(f"nothing was scored: {score.reason}")


@with_chat_options()
@options_of(UniquenessSettings, *_DRAWS, "calibrate", "near")
@options_of(ShardOptions, into="engine")
def uniqueness(
    ctx: typer.Context,
    chat: dict[str, Any],
    predictions: Path = typer.Argument(help="Predictions, JSONL."),
    listener: str = typer.Option(
        "exact",
        help="exact (scenes only), the folder of a checkpoint, openai:NAME (any OpenAI-compatible "
        "server) or transformers:NAME.",
    ),
    base_url: str | None = typer.Option(
        None, help="Address of the server, up to /v1; default: OpenAI's."
    ),
    api_key_env: str | None = typer.Option(None, help=KEY_HELP),
    data: str | None = typer.Option(
        None, help="The images, as `ureca predict` takes them; default: those predicted."
    ),
    masks: Path | None = typer.Option(None, help="Folder of a JSONL's or of photos' masks."),
    use_boxes: bool = typer.Option(
        False, "--use-boxes", help="Read boxes as regions where a file has no masks."
    ),
    out: Path | None = typer.Option(
        None, "-o", "--out", help="JSON; default: NAME.uniqueness.json."
    ),
    heard: Path | None = typer.Option(
        None, help="JSONL of listener scores, appended to; default: NAME.heard.LISTENER.jsonl."
    ),
    device: str | None = typer.Option(None, help=DEVICE_HELP),
    progress: bool = typer.Option(True, help="Show a bar."),
    part: list[int] | None = typer.Option(None, hidden=True),
    *,
    engine: ShardOptions,
    **given: Any,
) -> None:
    """Measure self-retrieval and collision; resumes an interrupted run."""
    from ureca_lib.evaluate.uniqueness import hear_predictions, join_heard, score_uniqueness

    chat |= {"base_url": dealt(base_url, part[0] if part else 0), "api_key_env": api_key_env}
    asked = (predictions, listener, data, masks, heard)
    if part:
        new = hear_predictions(*asked, device, False, chat, use_boxes, part)[0]
        typer.echo(f"{len(new):,} images")
        return
    if engine.shards:
        join_heard(predictions, listener, heard)  # of a run that was killed
        left = _run_shards(uniqueness_part, ctx.params, engine)
        join_heard(predictions, listener, heard)
        if left:
            _exit_1(f"{left} of {engine.shards} shards are not complete; rerun the command")
    settings = UniquenessSettings(**given)
    found, record = score_uniqueness(*asked, settings, device, progress, chat, use_boxes)
    _report(out or predictions.with_suffix(".uniqueness.json"), record, str(found))


def uniqueness_part(task: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Score a part of the images by a listener; a process of the engine calls this."""
    return call_command(uniqueness, {"ctx": None, **task["options"]})


@options_of(ReproductionSettings)
def table(
    number: int = typer.Argument(help="2 to 6."),
    records: list[str] | None = typer.Argument(
        None,
        help="Records of `ureca evaluate`, `clair` and `uniqueness`. For Table 6 refcocog=FILE and "
        "visual_genome=FILE.",
    ),
    form: Literal["markdown", "latex", "html", "csv"] = typer.Option(
        "markdown", "--format", help="csv has one line per cell."
    ),
    out: Path | None = typer.Option(None, "-o", "--out", help="Default: the screen."),
    intervals: bool = typer.Option(False, help="Show 95% intervals of measured rows."),
    ours: bool = typer.Option(True, help="Add columns that the paper does not have."),
    models: Path | None = typer.Option(
        None, help="Table 2: predict and score with every model of this folder first."
    ),
    data: str | None = typer.Option(
        None, help="With --models: the test set, as `ureca predict` takes it."
    ),
    work: Path = typer.Option("table_2", help="With --models: folder of predictions and records."),
    **given: Any,
) -> None:
    """Print a table of the paper with measured rows; every value has its source.

    \b
    ureca table 2 P.scores.json P.clair.json P.uniqueness.json --format latex
    ureca table 2 --models models/ --data test.jsonl@sa1b/

    The second form reproduces Table 2. --models has a folder for each checkpoint, under any name:
    a URECA; an InternVL or another multimodal LLM with a chat template (rows none, contour and
    crop); a ViP-LLaVA; a KOSMOS-2; and NAME.jsonl for predictions of systems that run elsewhere.
    Every model captions every region once. The seconds of each are printed: a run with --limit 10
    tells how long all images will take. An interrupted run resumes in --work; CLAIR comes from
    `ureca clair WORK/NAME.jsonl` and a second run.
    """
    from ureca_lib.evaluate import tables
    from ureca_lib.evaluate.reproduction import reproduce_table_2

    failures: dict[str, str] = {}
    if models is None:
        content = tables.read_tables(number, records or [], ours)
    elif number != 2 or data is None or records:
        raise ValueError("--models is for Table 2, without records, and needs --data")
    else:
        settings = ReproductionSettings(**given)
        content, failures = reproduce_table_2(models, data, work, settings)
    text = getattr(tables, form)(content, intervals)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(f"Table {number} -> {out}", err=True)
    for name, reason in failures.items():
        typer.echo(f"ureca: {name} has no row: {reason}", err=True)
    if failures:
        raise typer.Exit(1)


@options_of(BootstrapSettings, *_DRAWS, into="bootstrap")
def agreement(
    sources: list[Path] = typer.Argument(
        help="Stores of `ureca annotate` with reviews, or JSONL files of judgments: "
        '{"id": "IMAGE/REGION", "caption": ..., "decision": "accept", "reviewer": ...}.'
    ),
    out: Path | None = typer.Option(None, "-o", "--out", help="JSON with all disagreements."),
    *,
    bootstrap: BootstrapSettings,
) -> None:
    """Measure how far reviewers agree with each other and with the verifier.

    The share of equal judgments and Cohen's kappa, with 95% intervals over images, and the captions
    on which two disagree.
    """
    from ureca_lib.evaluate.agreement import measure_agreement, read_judgments

    judgments = read_judgments(sources)
    found = measure_agreement(judgments, bootstrap)
    if not found:
        raters = ", ".join(judgments.rater.unique())
        _exit_1(f"no caption was judged by two; there are judgments of {raters}")
    typer.echo("\n".join(map(str, found)))
    if out is not None:
        write_json(out, [each.to_dict() for each in found])
        typer.echo(f"all disagreements -> {out}", err=True)
