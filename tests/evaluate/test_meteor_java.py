"""METEOR 1.5: its formula from recorded statistics, and the program where it is installed."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from evaluate.sentences import ODD, peer_pairs

from ureca_lib.evaluate import meteor_java as module
from ureca_lib.evaluate.meteor_java import JavaMeteorError, meteor_java

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


def answers(monkeypatch, stdout: str, status: int = 0) -> list[str]:
    """Play the program; returns where its input will stand."""
    asked: list[str] = []

    def run(command, input, **options):
        asked.append(input)
        return subprocess.CompletedProcess(command, status, stdout, "Error: out of memory")

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "_java", lambda: "java")
    monkeypatch.setattr(module, "_program", lambda: "meteor-1.5.jar")
    monkeypatch.setattr(module, "version", lambda name: "1.2")
    return asked


def test_the_formula_gives_the_programs_scores(monkeypatch):
    asked = answers(monkeypatch, STATISTICS)
    (measured,) = meteor_java([("a |||\n b", ["c", "d ||| e"])] * 5)
    assert measured.captions == pytest.approx(EACH, abs=1e-12)
    assert measured.tally.value == pytest.approx(TOGETHER, abs=1e-12)
    assert asked[0].splitlines() == ["SCORE ||| c ||| d e ||| a b"] * 5
    assert measured.label == "METEOR 1.5 (Java)"


@pytest.mark.parametrize("said", ["", "1.0 2.0\n", "not numbers\n" * 2])
def test_an_answer_that_is_none_says_what_the_program_said(monkeypatch, said):
    answers(monkeypatch, said, 1)
    with pytest.raises(JavaMeteorError, match="status 1: Error: out of memory"):
        meteor_java([("a", ["b"])] * 2)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(JavaMeteorError, match="no java"):
        meteor_java([("a", ["b"])])
    monkeypatch.setattr(module, "_java", lambda: "java")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JavaMeteorError, match=r"ureca-lib\[java\]"):
        meteor_java([("a", ["b"])])


@pytest.fixture(scope="module")
def counted() -> dict[str, np.ndarray]:
    """For each set of odd sentences what the program counts; it takes seconds to start."""
    try:
        module._java(), module._program()
    except JavaMeteorError as error:
        pytest.skip(str(error))
    (measured,) = meteor_java([pair for pairs, *_ in ODD.values() for pair in pairs])
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
