"""BLEU, ROUGE-L and CIDEr: pycocoevalcap's figures, and the definitions written out."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from evaluate.sentences import ODD, peer_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.evaluate.ngrams import bleu, cider, lcs_length, ngram_counts, rouge_l


def values(pairs) -> tuple[list[float], list[float]]:
    """BLEU-1 to BLEU-4, then ROUGE-L and CIDEr."""
    return (
        [one.tally.value for one in bleu(pairs)],
        [metric(pairs)[0].tally.value for metric in (rouge_l, cider)],
    )


@pytest.mark.parametrize("name", ODD)
def test_odd_sentences_score_as_recorded(name):
    pairs, bleus, others = ODD[name]
    found = values(pairs)
    assert found[0] == pytest.approx(bleus, abs=1e-9)
    assert found[1] == pytest.approx(others, abs=1e-9)


@pytest.mark.parametrize("which", ["files", "single"])
def test_peer_vectors(peer, which):
    pairs, expected = peer_pairs(peer, which)
    found = values(pairs)
    assert found[0] == pytest.approx(expected["BLEU"], abs=1e-6)
    assert found[1] == pytest.approx([expected["ROUGE_L"], expected["CIDEr"]], abs=1e-6)


WORDS = (
    "a",
    "A",
    "the",
    "red",
    "red,",
    "cup",
    "cup.",
    "on",
    "左边",
    "'s",
    "-",
    " ",
    "\t",
    "x\u3000y",
)
sentences = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
corpora = st.lists(
    st.tuples(sentences, st.lists(sentences, min_size=1, max_size=5)), min_size=1, max_size=6
)


@settings(max_examples=100, deadline=None)
@given(corpora)
def test_any_sentences_score_as_by_pycocoevalcap(pairs):
    module = pytest.importorskip("pycocoevalcap", reason="the java extra is not installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    assert module
    references = {i: texts for i, (_, texts) in enumerate(pairs)}
    captions = {i: [caption] for i, (caption, _) in enumerate(pairs)}
    measured = bleu(pairs)
    totals, each = Bleu(4).compute_score(references, captions, verbose=0)
    assert [one.tally.value for one in measured] == pytest.approx(totals, abs=1e-9)
    for one, scores in zip(measured, each, strict=True):
        assert one.captions == pytest.approx(scores, abs=1e-9)
    if any(text.split() for texts in references.values() for text in texts):
        total, each = Cider().compute_score(references, captions)  # it fails on none at all
        assert cider(pairs)[0].tally.value == pytest.approx(total, abs=1e-9)
        assert cider(pairs)[0].captions == pytest.approx(each, abs=1e-9)
    _, each = Rouge().compute_score(references, captions)
    expected = [
        0 if not caption.strip() else s for (caption, _), s in zip(pairs, each, strict=True)
    ]
    assert rouge_l(pairs)[0].captions == pytest.approx(expected, abs=1e-9)


def slow_lcs(first, second) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
            )
    return int(table[-1, -1])


@given(
    st.lists(st.sampled_from("abc"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80)
)
@settings(max_examples=60, deadline=None)
def test_common_subsequence_is_that_of_the_table(first, second):
    assert lcs_length(first, second) == slow_lcs(first, second)


def test_cider_is_the_clipped_cosine_of_tf_idf_vectors():
    generator = random.Random(3)

    def text(least: int = 4) -> str:
        return " ".join(
            generator.choices(["a", "red", "blue", "cup", "dish", "table", "of", "on"], k=least + 3)
        )

    pairs = [(text(), [text(), text(5)]) for _ in range(7)]
    scores = cider(pairs)[0].captions
    documents = [
        {gram for one in texts for part in ngram_counts(one) for gram in part} for _, texts in pairs
    ]
    for (caption, texts), score in zip(pairs, scores, strict=True):
        total = 0.0
        for reference in texts:
            for n in range(4):
                left, right = ngram_counts(caption)[n], ngram_counts(reference)[n]
                grams = sorted(left | right)
                rare = np.array(
                    [math.log(7 / max(1, sum(gram in d for d in documents))) for gram in grams]
                )
                x = np.array([left[gram] for gram in grams]) * rare
                y = np.array([right[gram] for gram in grams]) * rare
                gap = len(caption.split()) - len(reference.split())
                cosine = np.minimum(x, y) @ y / (np.linalg.norm(x) * np.linalg.norm(y))
                total += cosine * math.exp(-(gap**2) / 72)
        assert score == pytest.approx(10 * total / 8, abs=1e-9)


def test_an_empty_caption_scores_nothing_even_against_an_empty_reference():
    assert rouge_l([("", [""]), ("  ", ["a  b"])])[0].captions.tolist() == [0, 0]
    assert cider([("", [""]), ("", ["a"])])[0].captions.tolist() == [0, 0]
    assert bleu([("", ["a b"])])[0].tally.value == pytest.approx(0, abs=1e-9)


def test_a_perfect_caption_scores_one():
    pairs = [("a red cup on a table", ["a red cup on a table"]), ("the dog", ["a cat", "the dog"])]
    found = values(pairs)
    assert found[0] == pytest.approx([1, 1, 1, 1], abs=1e-6)
    assert found[1][0] == pytest.approx(1)


def test_ten_thousand_words_are_no_trouble():
    long = " ".join(f"w{i % 997}" for i in range(10_000))
    found = values([(long, ["a red cup", "w1 w2 w3"]), ("a cup", ["a cup"])])
    assert 0 < found[0][0] < 0.01 and 0 < found[1][0] < 1
