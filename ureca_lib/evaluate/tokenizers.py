"""Tokenizers by name. They return a text whose tokens are separated by white space.

The COCO evaluation runs Stanford's PTB tokenizer in Java, lowers the case and drops punctuation.
"ptb" does so with nltk's tokenizer of the same convention, which needs neither Java nor data.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# the list of pycocoevalcap's ptbtokenizer.py; its "-LRB-" and the like match nothing there, because
# the case is lowered before, so that brackets remain as "-lrb-"
_DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_ABBREVIATION = (
    r"(?:[a-z]|(?:[a-z]\.)+[a-z]|mr|mrs|ms|dr|st|mt|jr|sr|vs|etc|inc|ltd|co|corp|ave|approx)"
)
_STOP = re.compile(r"(?<!\S)(\S*[^\s.])\.(?=[\"'”’)\]]*\s)")  # a full stop within the text
_LAST = re.compile(rf"(?<!\S){_ABBREVIATION}\.$", re.IGNORECASE)
_OPENING = re.compile(r"(?<![^\s(\[])'(?!t(?:is|was)\b|\d0s)(?=\w)", re.IGNORECASE)
_SIGNS = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "–": " -- ", "—": " -- ", "…": " ... "}
)


def ptb(text: str) -> str:
    """Penn Treebank tokens in lower case, without punctuation, as COCO's evaluation has them.

    It equals Stanford's tokenizer on ordinary captions; web addresses, formulas and the like may
    be cut in other places.
    """
    from nltk.tokenize.treebank import TreebankWordTokenizer

    text = " ".join(text.translate(_SIGNS).replace("...", " ... ").split())
    text = _OPENING.sub("", _STOP.sub(_split_stop, text))
    text = _LAST.sub(r"\g<0> .", text)
    tokens = TreebankWordTokenizer().tokenize(text, convert_parentheses=True)
    text = re.sub(r"(?<=[?!]) (?=[?!])", "", " ".join(tokens).lower())
    return " ".join(token for token in text.split() if token not in _DROPPED)


def _split_stop(match: re.Match[str]) -> str:
    word, rest = match.group(1), match.string[match.end() :].lstrip()
    number = word.lower() == "no" and rest[:1].isdigit()
    known = number or re.fullmatch(_ABBREVIATION, word, re.IGNORECASE)
    return match.group(0) if known else f"{word} ."


# text -> text with tokens separated by blanks
TOKENIZERS: dict[str, Callable[[str], str]] = {"whitespace": str, "ptb": ptb}
