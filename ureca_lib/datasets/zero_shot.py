"""The protocol of Table 6: region captions on RefCOCOg and Visual Genome, scored by METEOR.

The paper (App. C) gives METEOR on both for a model trained on URECA only, and says no more than
that; Figure 5 speaks of RefCOCOg's validation set. Everything else is a choice, and decides the
figure. `PROTOCOL` lists each choice with its source; where it says "ours", nobody else's figure is
promised to compare. In short:

- RefCOCOg: the objects of the UMD partition's val split, each by its mask, against all
  expressions for it; Visual Genome: the boxes of the 5,000 test images, filled as masks, against
  the one phrase of each.
- The whole photo, one region at a time in what the model is told, the question of training, greedy
  decoding; no training on either data set, no examples in the prompt.
- METEOR, mean over regions, best reference of each, times 100.

`open_zero_shot` opens a text such as `refcocog:umd:val:FOLDER`, `visual_genome:test:FOLDER`, with
`@PHOTOS` behind it where photos lie elsewhere, and `val/single` or `val/multi` for the images with
one region, or with several, in the split: with one, any true description is unique.
`ureca_lib.datasets.captioned.open_captioned` takes the same texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ureca_lib.datasets.captioned import CaptionedError
from ureca_lib.datasets.described import REGION_SETS, DescribedImages
from ureca_lib.datasets.refcocog import refcocog_captioned
from ureca_lib.datasets.visual_genome import visual_genome_captioned

PREFIXES = ("refcocog:", "visual_genome:")
_FORMS = "refcocog:PARTITION:SPLIT:FOLDER or visual_genome:SPLIT:FOLDER"


class Choice(NamedTuple):
    """What a figure of Table 6 depends on, how it is decided here, and whose decision that is."""

    matter: str
    choice: str
    source: str


_BOTH = "the paper does not say; ours"
PROTOCOL: tuple[Choice, ...] = (
    Choice("metric", "METEOR x 100, mean over regions, best reference of each", "Table 6"),
    Choice(
        "METEOR's implementation",
        "nltk's by default, Java METEOR 1.5 with `meteor='java'`",
        "the paper does not say; GLaMM's and All-Seeing's evaluation run pycocoevalcap (Java)",
    ),
    Choice(
        "tokens",
        "Penn Treebank's, in lower case and without punctuation, of captions and references",
        "pycocoevalcap's evaluation, which those run",
    ),
    Choice(
        "zero-shot",
        "no sentence of either data set in training or in the prompt",
        "App. C: 'without using the benchmarks' training sets'",
    ),
    Choice(
        "RefCOCOg: split",
        "val",
        "Fig. 5: 'ground-truth annotation in the validation set'; GLaMM's evaluation too",
    ),
    Choice("RefCOCOg: partition", "UMD, whose images are not shared between splits", _BOTH),
    Choice("RefCOCOg: region", "the object's own mask (GLaMM's evaluation takes its box)", _BOTH),
    Choice(
        "RefCOCOg: references",
        "all expressions for the object, as `sent`: lower case, no punctuation",
        "the refer API's own evaluation; files with an entry an expression score each alone, "
        "which `each_expression` does",
    ),
    Choice(
        "Visual Genome: images",
        "the 5,000 test images of DenseCap's split",
        "the paper does not say; GRiT's test file, which others take, some a subset of it",
    ),
    Choice(
        "Visual Genome: phrases",
        "at most 15 words, symbols as words",
        "GRiT's preparation; in lower case and without punctuation, as in DenseCap's",
    ),
    Choice("Visual Genome: region", "the box as a mask, clipped to the image", _BOTH),
    Choice("prompt", "the question of training, 'Describe this region in the image.'", _BOTH),
    Choice("decoding", "greedy, at most 256 tokens", _BOTH),
    Choice(
        "single and multi",
        "Table 6 takes all regions; images with one and with several are scored apart besides",
        _BOTH,
    ),
)


def protocol_markdown() -> str:
    """`PROTOCOL` as a Markdown table."""
    rows = [Choice("What", "Here", "By whom"), Choice("---", "---", "---"), *PROTOCOL]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def open_zero_shot(
    text: str,
    images: str | Path | None = None,
    limit: int | None = None,
    strict: bool = True,
) -> DescribedImages:
    """Open a split of RefCOCOg or Visual Genome by a text; see the module.

    Args:
        text: `refcocog:umd:val:FOLDER`, `refcocog:google:val:FOLDER`, `visual_genome:test:FOLDER`,
            or `visual_genome:test:FILE` in the form of GRiT.
        images: folder of the photos, instead of the one that the text may name.
        limit: only the first so many images.
        strict: False leaves faulty entries out and lists them.

    Raises:
        CaptionedError: a text of another form. The rest as `refcocog_captioned` and
            `visual_genome_captioned` raise it.
    """
    name, _, rest = text.partition(":")
    parts = rest.split(":", 2 if name == "refcocog" else 1)
    if f"{name}:" not in PREFIXES or len(parts) != (3 if name == "refcocog" else 2):
        raise CaptionedError(f"{text!r}: a data set is opened as {_FORMS}")
    *partition, split, place = parts
    split, _, regions = split.partition("/")
    regions = regions or "all"
    if regions not in REGION_SETS:
        raise CaptionedError(f"{text!r}: behind a split stands {' or '.join(REGION_SETS[1:])}")
    if "@" in place and not Path(place).exists():
        place, _, named = place.rpartition("@")
        images = images or named
    if name == "refcocog":
        return refcocog_captioned(
            place, partition[0], split, images, limit, regions=regions, strict=strict
        )
    return visual_genome_captioned(place, split, images, limit, regions, strict=strict)


def each_expression(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references with an entry for each expression, as COCO-like files have them.

    A region with three expressions counts three times, its caption against one of them each. The
    mean is lower than against the best of the three.

    Args:
        predictions: by id; references: by id.

    Returns:
        Both by `ID#0`, `ID#1`, ...; a region without a caption stays without.
    """
    captions, singles = {}, {}
    for key, texts in references.items():
        for number, text in enumerate(texts):
            singles[f"{key}#{number}"] = [text]
            if key in predictions:
                captions[f"{key}#{number}"] = predictions[key]
    return captions, singles
