"""`ureca predict` and `ureca evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ureca_lib.chat import KEY_HELP
from ureca_lib.chat_options import with_chat_options
from ureca_lib.devices import DEVICE_HELP


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
        str | None, typer.Option(help="What the model is asked; default: the system's own.")
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option(help="What the system was trained on, for the tables.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What tables call the system; default: --system.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of a JSONL's masks.")] = None,
    style: Annotated[
        str, typer.Option(help="References of scenes: phrase, minimal or sentence.")
    ] = "phrase",
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    strict: Annotated[
        bool, typer.Option(help="Stop at a bad mask; --no-strict leaves it out.")
    ] = True,
    max_new_tokens: Annotated[int, typer.Option(help="Longest caption in tokens.")] = 256,
    max_tiles: Annotated[
        int | None, typer.Option(help="Most tiles of an image; default: the model's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Regions that a baseline sees together.")] = 4,
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
    """Caption every region of some data; resumes where an earlier run stopped."""
    from ureca_lib.datasets.captioned import open_captioned
    from ureca_lib.evaluate import predict as predicting
    from ureca_lib.evaluate.making import SystemOptions, make_system

    try:
        images = open_captioned(data, limit, style, masks, strict)  # type: ignore[arg-type]
        asked = (question, max_new_tokens, max_tiles, batch_size)
        options = SystemOptions(
            system, model, base_url, *asked, device, dtype, seed, name, api_key_env, chat
        )
        summary = predicting.predict(
            make_system(options),
            images,
            out,
            trained_on,
            seed,
            {"style": style, "masks": None if masks is None else str(masks), "strict": strict},
            retry_failed,
            progress,
        )
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise _stop(error) from None
    typer.echo(
        f"{summary.predictions:,} captions ({summary.made:,} new) of {summary.images:,} images, "
        f"{summary.seconds:g} s -> {out}"
    )
    for what, reasons in (("no caption", summary.failed), ("not read", summary.unread)):
        if reasons:
            first, reason = next(iter(reasons.items()))
            typer.echo(f"{what}: {len(reasons):,}, such as {first}: {reason}", err=True)
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
    from ureca_lib.evaluate.bootstrap import BootstrapSettings
    from ureca_lib.evaluate.metrics import MetricSettings

    try:
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
        references = read_references(refs) if refs else None
        compared = None
        if compare is None:
            found = scoring.evaluate(predictions, references, chosen, settings)
        else:
            asked = (references, chosen, settings)
            side, other, differences = scoring.compare(predictions, compare, *asked)
            sizes = scoring.compare_sizes(side.exact, other.exact, settings.bootstrap)
            compared = scoring.comparison_record(other, differences, sizes)
            found = scoring.evaluate_all(side, *asked)
        target = out or predictions.with_suffix(".scores.json")
        scoring.write_scores(target, found, compared)
    except (ValueError, OSError, ImportError) as error:
        raise _stop(error) from None
    for message in found.messages():
        typer.echo(message, err=True)
    typer.echo(scoring.evaluation_text(found))
    if compare is not None:
        typer.echo(scoring.evaluation_text(other))
        typer.echo(scoring.comparison_text(differences, sizes, len(other.rows)))
    typer.echo(f"all figures -> {target}", err=True)


def _stop(reason: Exception | str) -> typer.Exit:
    """Say why, on standard error, and end with status 2: the input is at fault."""
    typer.echo(f"ureca: {reason}", err=True)
    return typer.Exit(2)
