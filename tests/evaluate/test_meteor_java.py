"""METEOR 1.5: its formula from recorded statistics, and the program where it is installed."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from evaluate.sentences import ODD, peer_pairs

from ureca_lib.evaluate import meteor as module
from ureca_lib.evaluate.meteor import meteor_java

# what the program prints for five captions, and its scores: of each, and of all together
STATISTICS = """\
10.0 7.0 4.0 4.0 1.0 1.0 2.0 2.0 0 0 0 0 0 0 0 0 0 0 0 0 2.0 3.0 3.0
10.0 13.0 6.0 7.0 4.0 4.0 4.0 4.0 0 0 0 0 0 0 0 0 0 0 2.0 1.0 2.0 10.0 9.0
0.0 2.0 0.0 1.0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0.0 0.0 0.0
5.0 5.0 1.0 1.0 0 0 0 0 2.0 2.0 0 0 0 0 0 0 2.0 2.0 1.0 1.0 1.0 5.0 5.0
2.0 0.0 1.0 0.0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0.0 0.0 0.0
"""
EACH = [0.1556568826170604, 0.39012536521249613, 0.0, 0.5999999999999999, 0.0]
TOGETHER = 0.29510500360220887
RECORDED = {  # of the captions of sentences.py, by pycocoevalcap 1.2
    "punctuation": 0.569276896438,
    "many references": 0.516803025688,
    "empty and one word": 0.235615937702,
    "repeated words": 0.314515003801,
    "white space": 0.504420501829,
}


def play(monkeypatch, replies: list[str]) -> list[str]:
    """Play pycocoevalcap's program; returns the place of what it will be asked."""
    asked: list[str] = []

    class Meteor:
        def __init__(self):
            stderr = io.BytesIO(b"Error: out of memory")
            self.meteor_p = SimpleNamespace(stderr=stderr, kill=lambda: None)

        def _stat(self, caption, references):
            asked.append(" ||| ".join([*references, caption]))
            return replies[len(asked) - 1]

    monkeypatch.setitem(sys.modules, "pycocoevalcap", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", SimpleNamespace(Meteor=Meteor))
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    monkeypatch.setattr(module, "version", lambda name: "1.2")
    return asked


def test_the_formula_gives_the_programs_scores(monkeypatch):
    asked = play(monkeypatch, STATISTICS.splitlines())
    (measured,) = meteor_java([("a |||\n b", ["c", "d ||| e"])] * 5)
    assert measured.captions == pytest.approx(EACH, abs=1e-12)
    assert measured.value == pytest.approx(TOGETHER, abs=1e-12)
    assert asked == ["c ||| d e ||| a b"] * 5
    assert measured.label == "METEOR 1.5 (Java)"


@pytest.mark.parametrize("reply", ["", "1.0 2.0", "not numbers"])
def test_an_answer_that_is_none_says_what_the_program_said(monkeypatch, reply):
    play(monkeypatch, [STATISTICS.splitlines()[0], reply])
    with pytest.raises(OSError, match="of 2: Error: out of memory"):
        meteor_java([("a", ["b"])] * 2)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OSError, match="no java"):
        meteor_java([("a", ["b"])])
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    with pytest.raises(OSError, match=r"ureca-lib\[java\]"):
        meteor_java([("a", ["b"])])


@pytest.fixture(scope="module")
def counted() -> dict[str, np.ndarray]:
    """For each set of odd sentences what the program counts; it takes seconds to start."""
    try:
        (measured,) = meteor_java([pair for pairs, *_ in ODD.values() for pair in pairs])
    except OSError as error:
        if "needs" not in str(error):
            raise
        pytest.skip(str(error))
    ends = np.cumsum([len(pairs) for pairs, *_ in ODD.values()])[:-1]
    return dict(zip(ODD, np.split(measured.tally.rows, ends), strict=True))


@pytest.mark.parametrize("name", RECORDED)
def test_the_program_scores_odd_sentences(counted, name):
    value = module._finish(counted[name].sum(axis=0))
    assert value == pytest.approx(RECORDED[name], abs=1e-9)


def test_the_program_on_the_peers_sentences(counted, peer):
    for which in ("files", "single"):
        pairs, expected = peer_pairs(peer, which)
        (measured,) = meteor_java(pairs)
        assert measured.tally.value == pytest.approx(expected["METEOR_java_1.5"], abs=1e-6)
