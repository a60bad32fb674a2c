"""METEOR 1.5 in Java, as COCO's evaluation runs it: needs Java and the extra "java".

Denkowski and Lavie, WMT 2014. The program matches words; it gives the statistics of each caption,
from which any set of captions is scored here by its formula, so that the bootstrap need not call
it again.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ureca_lib.evaluate.ngrams import Pair
from ureca_lib.evaluate.scores import Measured, Tally

# of the program's task "-l en": Denkowski and Lavie 2014
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
_COLUMNS = 23
_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")  # as pycocoevalcap's meteor.py


class JavaMeteorError(RuntimeError):
    """The program is missing, or did not answer as it should."""


def meteor_java(pairs: Sequence[Pair]) -> list[Measured]:
    """Corpus METEOR 1.5 of N captions.

    Raises:
        JavaMeteorError: no Java, no pycocoevalcap, or a program that failed.
    """
    rows = _statistics(pairs)
    settings = {"alpha": _ALPHA, "beta": _BETA, "gamma": _GAMMA, "delta": _DELTA, "level": "corpus"}
    number = version("pycocoevalcap")
    return [
        Measured(
            "meteor",
            "METEOR 1.5 (Java)",
            Tally(rows, _finish),
            _finish(rows),
            "pycocoevalcap, meteor-1.5.jar",
            number,
            settings=settings,
        )
    ]


def _statistics(pairs: Sequence[Pair]) -> np.ndarray:
    """(N, 23) what the program counts in each caption against its best reference."""
    command = [_java(), "-Xmx2G", "-jar", str(_program()), *_OPTIONS]
    lines = ["SCORE ||| " + " ||| ".join([*map(_plain, r), _plain(c)]) for c, r in pairs]
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8", check=False
    )
    try:
        rows = np.array([line.split() for line in done.stdout.splitlines()], np.float64)
    except ValueError:
        rows = np.empty(0)
    if rows.shape != (len(pairs), _COLUMNS):
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise JavaMeteorError(
            f"METEOR 1.5 answered {len(rows)} of {len(pairs)} captions, status {done.returncode}: "
            f"{said}"
        )
    # the program does not count the one chunk of texts that match as a whole
    whole = (rows[:, 21:23] == rows[:, 0:2]).all(axis=1) & (rows[:, 20] == 1)
    rows[whole, 20] = 0
    return rows


def _finish(sums: np.ndarray) -> np.ndarray:
    """(..., 23) -> (...,).

    The columns: lengths of caption and reference, function words in each, then for each matcher
    the content words of both and the function words of both, then chunks and matched words of both.
    """
    lengths, functions = sums[..., 0:2], sums[..., 2:4]
    matched = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # matcher, kind, text
    by_kind = np.einsum("...mkt,m->...kt", matched, _MATCHERS)
    found = _DELTA * by_kind[..., 0, :] + (1 - _DELTA) * by_kind[..., 1, :]
    whole = _DELTA * (lengths - functions) + (1 - _DELTA) * functions
    share = np.divide(found, whole, out=np.zeros_like(found), where=whole > 0)
    precision, recall = share[..., 0], share[..., 1]
    below = _ALPHA * precision + (1 - _ALPHA) * recall
    mean = np.divide(precision * recall, below, out=np.zeros_like(below), where=below > 0)
    chunks, words = sums[..., 20], sums[..., 21:23].mean(axis=-1)
    parts = np.divide(chunks, words, out=np.zeros_like(words), where=words > 0)
    return mean * (1 - _GAMMA * parts**_BETA)


def _plain(text: str) -> str:
    """One line without the program's separator."""
    return " ".join(text.replace("|||", " ").split())


def _java() -> str:
    found = shutil.which("java")
    if found is None:
        raise JavaMeteorError("METEOR 1.5 needs Java: there is no java on the PATH")
    return found


def _program() -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / "meteor" / "meteor-1.5.jar"
        if path.is_file():
            return path
    raise JavaMeteorError('METEOR 1.5 needs pycocoevalcap: pip install "ureca-lib[java]"')
