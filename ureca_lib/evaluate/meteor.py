"""METEOR by nltk with WordNet's synonyms, or METEOR 1.5 in Java as COCO's evaluation runs it.

nltk computes the METEOR of Banerjee and Lavie (2005) with the weights of Lavie and Agarwal (2007)
as the mean over captions. METEOR 1.5 (Denkowski and Lavie, WMT 2014) gives other numbers; it needs
Java and the extra "java". The label of a score names its implementation.
"""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nltk
import numpy as np
from nltk.corpus import wordnet
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score

from ureca_lib.evaluate.ngrams import Pair
from ureca_lib.evaluate.scores import Score, Tally, measured

DEBIAN_FOLDER = Path("/usr/share/wordnet")  # of the package wordnet-base
_GET_WORDNET = "python -m nltk.downloader wordnet, or apt install wordnet-base"
_WEIGHTS = {"alpha": 0.9, "beta": 3.0, "gamma": 0.5}  # nltk's defaults
# of the program's task "-l en": Denkowski and Lavie 2014
_JAVA = {"alpha": 0.85, "beta": 0.2, "gamma": 0.6, "delta": 0.75}
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
_COLUMNS = 23


class _FolderReader(WordNetCorpusReader):
    """nltk's reader for a folder that may lack files that METEOR does not need."""

    def open(self, file: str) -> Any:
        if file == "lexnames" and not (Path(str(self.root)) / file).is_file():
            # Debian leaves out the names of the 45 files of WordNet's authors
            return io.StringIO("".join(f"{number}\tunknown\t0\n" for number in range(45)))
        return super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:
        """No map to another WordNet: only the multilingual one, not used here, needs it."""


class Synonyms:
    """WordNet's synonyms as METEOR asks for them, with each word looked up once.

    Args:
        reader: nltk's reader, or None for no synonyms at all.
        source: where it was found.
    """

    def __init__(self, reader: WordNetCorpusReader | None, source: str):
        self.source, self._reader = source, reader
        self.version = "" if reader is None else str(reader.get_version() or "")
        self.synsets = cache(self._synsets)

    def __bool__(self) -> bool:
        return self._reader is not None

    def _synsets(self, word: str) -> Sequence[Any]:
        """All synonyms of a word as if they were of one sense: METEOR joins the senses anyway."""
        if self._reader is None:
            return ()
        senses = self._reader.synsets(word)
        names = sorted({lemma.name() for sense in senses for lemma in sense.lemmas()})
        lemmas = [SimpleNamespace(name=name.__str__) for name in names]
        return (SimpleNamespace(lemmas=lambda: lemmas),)


def find_wordnet(folder: str | Path | None = None) -> Synonyms:
    """The first WordNet that is found: in nltk_data, or Debian's; without one there is a warning.

    Args:
        folder: of WordNet's files; used instead of all others.

    Returns:
        The synonyms; false if there is no WordNet.

    Raises:
        ValueError: the folder holds no WordNet.
    """
    if folder is not None:
        return _of_folder(Path(folder).resolve())
    try:
        wordnet.ensure_loaded()
    except LookupError:
        if (DEBIAN_FOLDER / "index.noun").is_file():
            return _of_folder(DEBIAN_FOLDER)
        return _without()
    return Synonyms(wordnet, "nltk_data")


@cache  # so that a process says it once
def _without() -> Synonyms:
    text = f"METEOR without synonyms: there is no WordNet; {_GET_WORDNET}"
    warnings.warn(text, stacklevel=3)
    return Synonyms(None, "none")


@cache
def _of_folder(folder: Path) -> Synonyms:
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # nltk reads no file outside of these
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other languages
            return Synonyms(_FolderReader(str(folder), None), str(folder))
    except (OSError, ValueError, AssertionError, LookupError) as error:
        raise ValueError(f"{folder}: no WordNet can be read there ({error})") from None


def meteor(pairs: Sequence[Pair], synonyms: Synonyms) -> list[Score]:
    """Mean METEOR of N captions, each against its best reference.

    Args:
        pairs: captions and their references, tokens between white space.
        synonyms: of WordNet; false leaves them out, and the label says so.
    """
    stemmer = SimpleNamespace(stem=cache(PorterStemmer().stem))  # each word once
    options = {"stemmer": stemmer, "wordnet": synonyms, **_WEIGHTS}
    scores = [
        meteor_score([text.split() for text in references], caption.split(), **options)
        for caption, references in pairs
    ]
    settings = {**_WEIGHTS, "stemmer": "Porter", "synonyms": bool(synonyms)}
    backend, values = ("nltk.meteor_score", version("nltk")), np.array(scores)
    if synonyms:
        about = {"model": f"WordNet {synonyms.version}".strip()}
        about["settings"] = settings | {"wordnet": synonyms.source}
        return [measured("meteor", "METEOR (nltk)", values, *backend, **about)]
    label, name = "METEOR without synonyms (nltk)", f"{backend[0]}_without_synonyms"
    return [measured("meteor", label, values, name, backend[1], settings=settings)]


def meteor_java(pairs: Sequence[Pair]) -> list[Score]:
    """Corpus METEOR 1.5 of N captions.

    The program matches words and gives the statistics of each caption; any set of captions is
    scored from them by its formula, so that the bootstrap need not call it again.

    Raises:
        OSError: no Java, no pycocoevalcap, or a program that failed.
    """
    if shutil.which("java") is None:
        raise OSError("METEOR 1.5 needs Java: there is no java on the PATH")
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        raise OSError('METEOR 1.5 needs pycocoevalcap: pip install "ureca-lib[java]"') from None
    program, rows = Meteor(), []
    try:
        for caption, references in pairs:
            reply = program._stat(_plain(caption), [_plain(text) for text in references])
            rows.append([float(number) for number in reply.split()])
        statistics = np.array(rows, np.float64).reshape(len(pairs), _COLUMNS)
    except (OSError, ValueError):  # it ended, or answered in other words
        program.meteor_p.kill()
        reason = " ".join(program.meteor_p.stderr.read().decode("utf-8", "replace").split())
        place = f"METEOR 1.5 failed at caption {max(1, len(rows))} of {len(pairs)}"
        raise OSError(f"{place}: {reason[-300:]}") from None
    # the program does not count the single chunk of texts that match as a whole
    whole = (statistics[:, 21:23] == statistics[:, 0:2]).all(axis=1) & (statistics[:, 20] == 1)
    statistics[whole, 20] = 0
    tally = Tally(statistics, _finish)
    about = ("meteor", "METEOR 1.5 (Java)", _finish(statistics), "pycocoevalcap, meteor-1.5.jar")
    settings = {**_JAVA, "level": "corpus"}
    return [measured(*about, version("pycocoevalcap"), tally, settings=settings)]


def _finish(sums: np.ndarray) -> np.ndarray:
    """(..., 23) -> (...,).

    The columns: lengths of caption and reference, function words in each, then for each matcher
    the content words of both and the function words of both, then chunks and matched words of both.
    """
    lengths, functions = sums[..., 0:2], sums[..., 2:4]
    matched = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # matcher, kind, text
    by_kind = np.einsum("...mkt,m->...kt", matched, _MATCHERS)
    delta, alpha = _JAVA["delta"], _JAVA["alpha"]
    found = delta * by_kind[..., 0, :] + (1 - delta) * by_kind[..., 1, :]
    whole = delta * (lengths - functions) + (1 - delta) * functions
    share = np.divide(found, whole, out=np.zeros_like(found), where=whole > 0)
    precision, recall = share[..., 0], share[..., 1]
    below = alpha * precision + (1 - alpha) * recall
    mean = np.divide(precision * recall, below, out=np.zeros_like(below), where=below > 0)
    chunks, words = sums[..., 20], sums[..., 21:23].mean(axis=-1)
    parts = np.divide(chunks, words, out=np.zeros_like(words), where=words > 0)
    return mean * (1 - _JAVA["gamma"] * parts ** _JAVA["beta"])


def _plain(text: str) -> str:
    """One line without the program's separator."""
    return " ".join(text.replace("|||", " ").split())
