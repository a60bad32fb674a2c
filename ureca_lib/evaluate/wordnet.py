"""WordNet's synonyms, wherever its files are: nltk_data, Debian's package, or downloaded."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nltk.corpus.reader.wordnet import WordNetCorpusReader

DEBIAN_FOLDER = Path("/usr/share/wordnet")  # of the package wordnet-base
# Debian leaves this file out: lexnames(5WN) of WordNet 3.0, in the order of their numbers
_LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute "
    "noun.body noun.cognition noun.communication noun.event noun.feeling noun.food noun.group "
    "noun.location noun.motive noun.object noun.person noun.phenomenon noun.plant "
    "noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication "
    "verb.competition verb.consumption verb.contact verb.creation verb.emotion verb.motion "
    "verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl"
)
_PARTS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}  # of speech, as lexnames numbers them


class _FolderReader(WordNetCorpusReader):
    """nltk's reader of a folder that may lack what METEOR does not need."""

    def open(self, file: str) -> Any:
        if file == "lexnames" and not (Path(str(self.root)) / file).is_file():
            names = _LEXNAMES.split()
            lines = [f"{i}\t{n}\t{_PARTS[n.split('.')[0]]}\n" for i, n in enumerate(names)]
            return io.StringIO("".join(lines))
        return super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:
        """No map to another WordNet: only the multilingual one, not used here, needs it."""


@dataclass(frozen=True)
class _Name:
    """A word, as nltk's METEOR asks for it."""

    text: str

    def name(self) -> str:
        return self.text


@dataclass(frozen=True)
class _Sense:
    """All synonyms of a word as if they were of one sense, which is what METEOR makes of them."""

    words: tuple[_Name, ...]

    def lemmas(self) -> tuple[_Name, ...]:
        return self.words


class Synonyms:
    """What METEOR asks of WordNet, each word looked up once.

    Args:
        reader: nltk's reader, or None for no synonyms at all.
        source: where it was found.
    """

    def __init__(self, reader: WordNetCorpusReader | None, source: str):
        self.source = source
        self.version = "" if reader is None else str(reader.get_version() or "")
        self._reader = reader
        self._known: dict[str, Sequence[_Sense]] = {}

    def __bool__(self) -> bool:
        return self._reader is not None

    def synsets(self, word: str) -> Sequence[_Sense]:
        """One sense with all single-word synonyms, or none."""
        if self._reader is None:
            return ()
        if word not in self._known:
            senses = self._reader.synsets(word)
            names = {lemma.name() for sense in senses for lemma in sense.lemmas()}
            self._known[word] = (_Sense(tuple(_Name(name) for name in sorted(names))),)
        return self._known[word]


def find_wordnet(folder: str | Path | None = None, download: bool = True) -> Synonyms:
    """The first WordNet that is found: in nltk_data, Debian's, or downloaded.

    Args:
        folder: with WordNet's files, looked at before all others.
        download: fetch nltk's WordNet (10 MB, into nltk's folder) where there is none; never with
            HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE set.

    Returns:
        The synonyms; false where there is no WordNet.

    Raises:
        ValueError: the folder given holds no WordNet.
    """
    if folder is not None:
        return _of_folder(Path(folder).resolve())
    found = _of_nltk_data()
    if not found and (DEBIAN_FOLDER / "index.noun").is_file():
        found = _of_folder(DEBIAN_FOLDER)
    if not found and download and not is_offline():
        found = _downloaded()
    return found or Synonyms(None, "none")


def is_offline() -> bool:
    """Whether the environment says that no hub may be asked."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


@cache
def _of_folder(folder: Path) -> Synonyms:
    import nltk

    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # nltk reads no file outside of these
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it speaks no other languages
            return Synonyms(_FolderReader(str(folder), None), str(folder))
    except (OSError, ValueError, AssertionError, LookupError) as error:
        raise ValueError(f"{folder}: no WordNet can be read there ({error})") from None


def _of_nltk_data() -> Synonyms | None:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return Synonyms(wordnet, "nltk_data")


@cache
def _downloaded() -> Synonyms | None:
    """Tried once; what goes wrong is said in a warning, and by the score's name."""
    import nltk

    said = io.StringIO()
    try:
        nltk.download("wordnet", quiet=True, print_error_to=said)
    except Exception as error:  # whatever a network does
        said.write(f"{type(error).__name__}: {error}")
    found = _of_nltk_data()
    if not found:
        reason = " ".join(said.getvalue().replace("[nltk_data]", "").split())
        warnings.warn(f"METEOR without synonyms: WordNet could not be downloaded ({reason})")
    return found
