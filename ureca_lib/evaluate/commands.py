"""`ureca predict`, `evaluate`, `clair`, `uniqueness`, `table` and `agreement`.

Errors of the input pass through: the `ureca` command prints them in one line and exits with 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ureca_lib.chat import KEY_HELP
from ureca_lib.chat_options import with_chat_options
from ureca_lib.devices import DEVICE_HELP

FORMATS = ("markdown", "latex", "html", "csv")


def _exit_1(reason: str | None) -> NoReturn:
    """Exit with status 1: nothing was predicted or scored."""
    typer.echo(f"ureca: {reason}", err=True)
    raise typer.Exit(1)


@with_chat_options("max_reply_tokens")  # --max-new-tokens
def predict(
    chat: dict[str, Any],
    data: Annotated[
        str,
        typer.Option(
            help="scenes:test:500, a folder of scenes, a JSONL of the published layout "
            "(JSONL@MASKS), an export, or SA-1B files."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Predictions, NAME.jsonl.")],
    system: Annotated[
        str,
        typer.Option(
            help="ureca, blind, none, contour, crop, box, vip-llava, kosmos-2, attributes, oracle, "
            "shuffled or class-name."
        ),
    ] = "ureca",
    model: Annotated[
        str | None, typer.Option(help="Folder or hub id of the model, or its name on a server.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="OpenAI-compatible server for none, contour and crop; 'openai': its own."
        ),
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help=KEY_HELP)] = None,
    question: Annotated[
        str | None,
        typer.Option(help="Question to the model; default: the data set's, else the system's own."),
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option(help="Training data of the system, for the tables.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the system in tables; default: --system.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of a JSONL's masks.")] = None,
    style: Annotated[
        str, typer.Option(help="References of scenes: phrase, minimal or sentence.")
    ] = "phrase",
    limit: Annotated[
        int | None, typer.Option(help="Number of images; the first ones are taken.")
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Stop at a bad mask; --no-strict leaves it out.")
    ] = True,
    max_new_tokens: Annotated[int, typer.Option(help="Longest caption in tokens.")] = 256,
    max_tiles: Annotated[
        int | None, typer.Option(help="Most tiles of an image; default: the model's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Regions per batch of a baseline.")] = 4,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    dtype: Annotated[
        str, typer.Option(help="Of a baseline's weights: auto, float32, bfloat16, ...")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of the system 'shuffled'.")] = 0,
    retry_failed: Annotated[
        bool, typer.Option(help="Ask again where an error left no caption.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Caption every region of some data; resumes an interrupted run."""
    from ureca_lib.datasets.captioned import open_captioned
    from ureca_lib.evaluate import predict as predicting
    from ureca_lib.evaluate.systems import build_system

    images = open_captioned(data, limit, style, masks, strict)  # type: ignore[arg-type]
    built = build_system(
        system,
        model,
        base_url=base_url,
        question=question,
        max_new_tokens=max_new_tokens,
        max_tiles=max_tiles,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        name=name,
        api_key_env=api_key_env,
        server=chat,
    )
    opened = {"style": style, "masks": None if masks is None else str(masks), "strict": strict}
    summary = predicting.predict(
        built, images, out, trained_on, seed, opened, retry_failed, progress
    )
    typer.echo(
        f"{summary.predictions:,} captions ({summary.made:,} new) of {summary.images:,} images, "
        f"{summary.seconds:g} s -> {out}"
    )
    for problem, reasons in (("no caption", summary.failed), ("not read", summary.unread)):
        if reasons:
            first, reason = next(iter(reasons.items()))
            typer.echo(f"{problem}: {len(reasons):,}, such as {first}: {reason}", err=True)
    if not summary.predictions:
        _exit_1("nothing was predicted: no image could be read, or none has a region")
    if not summary.complete:
        raise typer.Exit(1)


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Predictions, JSONL.")],
    refs: Annotated[
        str | None,
        typer.Option(
            help="References: JSON {id: texts}, JSONL, or data as `ureca predict` takes it; "
            "default: those in the predictions."
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="Some of bleu,rouge_l,meteor,cider,bertscore; all, or none. bertscore needs a "
            "model."
        ),
    ] = "bleu,rouge_l,meteor,cider",
    compare: Annotated[
        Path | None, typer.Option(help="Other predictions of the same regions, compared in pairs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON; default: NAME.scores.json.")
    ] = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Of BLEU, ROUGE-L, METEOR and CIDEr: ptb, as COCO's evaluation has it, in which "
            "case and punctuation do not count, or whitespace."
        ),
    ] = "ptb",
    meteor: Annotated[
        str, typer.Option(help="nltk, or java: METEOR 1.5 by the extra of that name.")
    ] = "nltk",
    wordnet: Annotated[
        str | None, typer.Option(help="Folder of WordNet's files; default: they are looked for.")
    ] = None,
    bertscore_model: Annotated[
        str, typer.Option(help="auto (roberta-large, else minilm), minilm, hub id or folder.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    samples: Annotated[int, typer.Option(help="Resamples for the intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
) -> None:
    """Score predictions of any system: exact, unique, and the paper's metrics."""
    from ureca_lib.datasets.references import read_references
    from ureca_lib.evaluate import evaluation as scoring
    from ureca_lib.evaluate.metrics import MetricSettings
    from ureca_lib.evaluate.scores import BootstrapSettings

    settings = MetricSettings(
        tokenizer,
        meteor,  # type: ignore[arg-type]
        wordnet,
        bertscore_model=bertscore_model,
        device=device,
        bootstrap=BootstrapSettings(samples=samples, seed=seed),
    )
    named = {"all": scoring.METRICS, "none": ()}
    chosen = named.get(metrics, tuple(filter(None, metrics.split(","))))
    asked = (read_references(refs) if refs else None, chosen, settings)
    compared = None
    if compare is None:
        found = scoring.evaluate(predictions, *asked)
    else:
        side, other, differences = scoring.compare(predictions, compare, *asked)
        sizes = scoring.compare_sizes(side.exact, other.exact, settings.bootstrap)
        compared = scoring.comparison_record(other, differences, sizes)
        found = scoring.evaluate_all(side, *asked)
    target = out or predictions.with_suffix(".scores.json")
    kept = scoring.write_scores(target, found, compared)
    for message in found.messages():
        typer.echo(message, err=True)
    typer.echo(scoring.evaluation_text(found))
    if compare is not None:
        typer.echo(scoring.evaluation_text(other))
        typer.echo(scoring.comparison_text(differences, sizes, len(other.rows)))
    if kept:
        typer.echo(f"kept from an earlier run: {', '.join(kept)}", err=True)
    typer.echo(f"all scores -> {target}", err=True)
    values = [score.value for score in found.scores.values()]
    if all(value is None for value in values):
        reasons = [score.reason for score in found.scores.values()]
        first = (reasons or ["there are neither references (--refs) nor scenes"])[0]
        _exit_1(f"nothing was scored: {first}")


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
    """Score predictions by CLAIR; resumes an interrupted run."""
    from ureca_lib.chat import AnnotatorUnavailableError, BudgetSpentError
    from ureca_lib.datasets.references import read_references
    from ureca_lib.evaluate.clair import ClairSettings, make_judge, score_clair
    from ureca_lib.evaluate.evaluation import evaluate, pairs_of, quiet_about_ids
    from ureca_lib.evaluate.scores import BootstrapSettings
    from ureca_lib.journal import write_json

    log = log or predictions.with_suffix(".clair.jsonl")
    target = out or predictions.with_suffix(".clair.json")
    settings = ClairSettings(tries, BootstrapSettings(samples=samples, seed=seed), progress)
    asked = make_judge(judge, model, base_url, device, api_key_env, **chat)
    found = evaluate(predictions, read_references(refs) if refs else None, ())
    captions, references, images = pairs_of(found.rows)
    if not references:
        raise ValueError(f"{predictions}: CLAIR needs references: give --refs")
    try:
        with quiet_about_ids():
            score = score_clair(captions, references, asked, log, images, settings)
    except (AnnotatorUnavailableError, BudgetSpentError) as error:
        typer.echo(f"ureca: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(target, found.to_dict() | {"metrics": {"clair": score.as_record()}})
    for line in (f"{found.system}: {len(references):,} captions", f"  {score}", *found.messages()):
        typer.echo(line)
    for name in ("unread", "unanswered", "empty"):
        if number := score.settings.get(name):
            typer.echo(f"  {name}: {number:,}")
    typer.echo(f"all scores -> {target}", err=True)
    if score.value is None:
        _exit_1(f"nothing was scored: {score.reason}")


def uniqueness(
    predictions: Annotated[Path, typer.Argument(help="Predictions, JSONL.")],
    listener: Annotated[
        str, typer.Option(help="exact (scenes only) or the folder of a checkpoint.")
    ] = "exact",
    data: Annotated[
        str | None,
        typer.Option(help="The images, as `ureca predict` takes them; default: those predicted."),
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of a JSONL's masks.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON; default: NAME.uniqueness.json.")
    ] = None,
    heard: Annotated[
        Path | None,
        typer.Option(
            help="JSONL of listener scores, appended to; default: NAME.heard.LISTENER.jsonl."
        ),
    ] = None,
    calibrate: Annotated[str, typer.Option(help="none, or pmi to examine a listener.")] = "none",
    near: Annotated[
        float | None, typer.Option(help="Share of words that makes captions nearly equal.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar.")] = True,
) -> None:
    """Measure self-retrieval and collision; resumes an interrupted run."""
    from ureca_lib.evaluate.scores import BootstrapSettings
    from ureca_lib.evaluate.uniqueness import (
        NEAR,
        UniquenessSettings,
        score_uniqueness,
        uniqueness_text,
    )
    from ureca_lib.journal import write_json

    settings = UniquenessSettings(
        calibrate=calibrate,  # type: ignore[arg-type]
        near=NEAR if near is None else near,
        bootstrap=BootstrapSettings(seed=seed),
    )
    found, record = score_uniqueness(
        predictions, listener, data, masks, heard, settings, device, progress
    )
    target = out or predictions.with_suffix(".uniqueness.json")
    write_json(target, record)
    typer.echo(uniqueness_text(found))
    typer.echo(f"all scores -> {target}", err=True)


def _not_a_formula(value: Any) -> Any:
    """A cell that no spreadsheet computes: texts may come from other people's files."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def table(
    number: Annotated[int, typer.Argument(help="2 to 6.")],
    records: Annotated[
        list[str] | None,
        typer.Argument(
            help="Records of `ureca evaluate`, `clair` and `uniqueness`. For Table 6 "
            "refcocog=FILE and visual_genome=FILE."
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="markdown, latex, html, or csv with one line per cell.")
    ] = "markdown",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: the screen.")] = None,
    intervals: Annotated[bool, typer.Option(help="Show 95% intervals of measured rows.")] = False,
    ours: Annotated[bool, typer.Option(help="Add columns that the paper does not have.")] = True,
    models: Annotated[
        Path | None,
        typer.Option(help="Table 2: predict and score with every model of this folder first."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="With --models: the test set, as `ureca predict` takes it.")
    ] = None,
    work: Annotated[
        Path, typer.Option(help="With --models: folder of predictions and records.")
    ] = Path("table_2"),
    limit: Annotated[int | None, typer.Option(help="With --models: number of images.")] = None,
    listener: Annotated[
        str, typer.Option(help="With --models: exact (scenes), or the folder of a checkpoint.")
    ] = "exact",
    bertscore_model: Annotated[
        str, typer.Option(help="With --models: auto, minilm, hub id or folder.")
    ] = "auto",
    max_new_tokens: Annotated[
        int, typer.Option(help="With --models: longest caption in tokens.")
    ] = 256,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
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
    from ureca_lib.evaluate.tables import html, latex, markdown, read_tables
    from ureca_lib.journal import write_text

    failures: dict[str, str] = {}
    if form not in FORMATS:
        raise ValueError(f"--format is one of {', '.join(FORMATS)}, not {form!r}")
    if models is None:
        content = read_tables(number, records or [], ours)
    else:
        from ureca_lib.evaluate.metrics import MetricSettings
        from ureca_lib.evaluate.reproduction import reproduce_table_2

        if number != 2 or data is None or records:
            raise ValueError("--models is for Table 2, without records, and needs --data")
        settings = MetricSettings(bertscore_model=bertscore_model, device=device)
        content, failures = reproduce_table_2(
            models,
            data,
            work,
            limit,
            listener,
            device,
            settings,
            lambda line: typer.echo(line, err=True),
            max_new_tokens=max_new_tokens,
        )
    if form == "csv":
        text = content.cells_frame().map(_not_a_formula).to_csv(index=False)
    else:
        write = {"markdown": markdown, "latex": latex, "html": html}[form]
        text = write(content, intervals)
    if out is not None:
        write_text(out, text)
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"Table {number} -> {out}", err=True)
    for name, reason in failures.items():
        typer.echo(f"ureca: {name} has no row: {reason}", err=True)
    if failures:
        raise typer.Exit(1)


def agreement(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Stores of `ureca annotate` with reviews, or JSONL files of judgments: "
            '{"id": "IMAGE/REGION", "caption": ..., "decision": "accept", "reviewer": ...}.'
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON with all disagreements.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Resamples for the intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
) -> None:
    """Measure how far reviewers agree with each other and with the verifier.

    The share of equal judgments and Cohen's kappa, with 95% intervals over images, and the captions
    on which two disagree.
    """
    from ureca_lib.evaluate.agreement import agreement_text, measure_agreement, read_judgments
    from ureca_lib.evaluate.scores import BootstrapSettings
    from ureca_lib.journal import write_json

    judgments = read_judgments(sources)
    settings = BootstrapSettings(samples=samples, seed=seed)
    try:
        found = measure_agreement(judgments, settings)
    except ValueError as error:
        _exit_1(str(error))
    if out is not None:
        write_json(out, [each.to_dict() for each in found])
    typer.echo(agreement_text(found))
    if out is not None:
        typer.echo(f"all disagreements -> {out}", err=True)
