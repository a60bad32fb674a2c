"""The prompts of the stages: the words of Tables 7, 8 and 9, filled from the tree.

Three things are ours. The tables leave out the in-context examples, and those of Table 7 here are
not the authors'. Table 7 speaks of a larger object, so a region under the root has a variant of
it. The paper does not print its verification prompt; ours asks whether a caption fits the region
and only it. Table 9 does not show the captions of the look-alikes; rounds after the first do.

Captions come from models and are not trusted: each is quoted on a line of its own, and characters
that could end a tag, a line or the quotes are escaped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

from ureca_lib.annotate.protocol import Context, Stage
from ureca_lib.mask_tree import MaskTree, RegionId

# a changed text needs a new number here: the version is in the record of each caption
PROMPT_VERSIONS = {
    "short": "short/1",
    "short_main": "short-main/1",
    "long": "long/1",
    "unique": "unique/1",
    "unique_compared": "unique-compared/1",
    "verify": "verify/1",
}
MAX_CHARACTERS = 800  # of one description
MAX_LISTED = 60  # descriptions in a list
MAX_LIST_CHARACTERS = 8000  # of a list, shared out evenly
NOTHING = "None."
_ELLIPSIS, _EMPTY = "...", '""'


class Prompt(NamedTuple):
    """A filled prompt and the version of its template."""

    text: str
    version: str


def fill_prompt(
    stage: Stage, tree: MaskTree, region_id: RegionId, context: Context, compare: bool = False
) -> Prompt:
    """Fill the prompt of a stage for a region.

    Args:
        stage: "short" (Table 7, or its variant for a region under the root), "long" (Table 8),
            "unique" (Table 9) or "verify".
        tree: decides whether the region has a larger object around it.
        region_id: the region.
        context: the captions to fill in.
        compare: in stage "unique", show the look-alikes' captions too, which Table 9 does not;
            meant for the rounds after the first.

    Raises:
        ValueError: no caption to refine or to verify.
    """
    if stage in ("unique", "verify") and not context.current:
        raise ValueError(f"region {region_id}: stage {stage!r} needs the region's caption")
    name: str = stage
    if stage == "short" and tree.parent(region_id) is None:
        name = "short_main"
    elif stage == "unique" and compare:
        name = "unique_compared"
    text = template(name).format(
        parent=_one(context.parent),
        current=_one(context.current),
        siblings=_listed(list(context.siblings.values())),
        children=_listed(list(context.children.values())),
        look_alikes=_listed([context.look_alike_captions.get(i, "") for i in context.look_alikes]),
    )
    return Prompt(text, PROMPT_VERSIONS[name])


@cache
def template(name: str) -> str:
    """The text of a prompt, with its fields in braces; `name` is a key of `PROMPT_VERSIONS`."""
    folder = resources.files("ureca_lib.annotate") / "prompt_texts"
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


def quoted(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Quote a caption for a prompt: one line of at most `limit` characters between the quotes.

    Angle brackets become `&lt;` and `&gt;`, double quotes single ones; control and invisible
    characters are dropped; a longer text is cut at a word.
    """
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(s for s in line if unicodedata.category(s) not in ("Cc", "Cf", "Cs"))
    line = " ".join(line.replace('"', "'").split())
    if len(line) > limit:
        cut = line[: limit - len(_ELLIPSIS)]
        # no word break in the last half: cut where it is
        line = (cut.rpartition(" ")[0] if " " in cut[limit // 2 :] else cut) + _ELLIPSIS
    return '"' + line.replace("<", "&lt;").replace(">", "&gt;") + '"'


def _one(text: str | None) -> str:
    line = quoted(text or "")
    return NOTHING if line == _EMPTY else line


def _listed(texts: Sequence[str]) -> str:
    """Numbered descriptions, one per line, indented as in the tables; empty ones are left out."""
    shown = texts[:MAX_LISTED]
    limit = min(MAX_CHARACTERS, MAX_LIST_CHARACTERS // max(1, len(shown)))
    quotes = [quoted(text, limit) for text in shown]
    lines = [f"  {i}. {line}" for i, line in enumerate(quotes, start=1) if line != _EMPTY]
    if len(texts) > len(shown):
        lines.append(f"  (and {len(texts) - len(shown)} more)")
    return "\n".join(lines) or f"  {NOTHING}"
