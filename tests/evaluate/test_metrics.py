"""score_captions: what a user meets, with every kind of bad input."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from evaluate.sentences import peer_pairs
from evaluate.wordnet_folder import write_wordnet

from ureca_lib.evaluate.metrics import MetricSettings, score_captions
from ureca_lib.evaluate.scores import Score, compare_scores

WORDS = ("bleu", "rouge_l", "meteor", "cider")
KEYS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor", "cider"]
REFERENCES = {"a/1": ["a red cup"], "a/2": ["a blue cup", "a cup"], "b/1": "a dog runs"}
CAPTIONS = {"a/1": "a red cup", "a/2": "a mug", "b/1": "a dog runs"}
IMAGES = {"a/1": "a", "a/2": "a", "b/1": "b"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> MetricSettings:
    folder = write_wordnet(tmp_path_factory.mktemp("wordnet"))
    return MetricSettings(wordnet=str(folder), samples=50)


def test_keys_intervals_and_where_the_figures_come_from(settings):
    scores = score_captions(CAPTIONS, REFERENCES, WORDS, IMAGES, settings)
    assert sorted(scores) == sorted(KEYS)
    for name, score in scores.items():
        assert isinstance(score, Score) and score.name == name
        assert score.low <= score.value <= score.high
        assert score.backend and score.version and score.tokenizer == "ptb"
        assert (score.count, score.units, score.unit) == (3, 2, "image")
        assert json.loads(json.dumps(score.as_record()))["value"] == score.value
        assert list(score.by_id) == list(REFERENCES)
    assert scores["rouge_l"].by_id["b/1"] == pytest.approx(1)
    assert scores["meteor"].model == "WordNet 3.0" and scores["meteor"].label == "METEOR (nltk)"


def test_peer_vectors_through_the_front_door(peer, settings):
    pairs, expected = peer_pairs(peer, "files")
    captions = {i: caption for i, (caption, _) in enumerate(pairs)}
    references = {i: texts for i, (_, texts) in enumerate(pairs)}
    settings = replace(settings, tokenizer="whitespace")  # its texts are tokens already
    scores = score_captions(captions, references, ("bleu", "rouge_l", "cider"), settings=settings)
    found = [scores[f"bleu_{n}"].value for n in (1, 2, 3, 4)]
    assert found == pytest.approx(expected["BLEU"], abs=1e-4)
    assert scores["rouge_l"].value == pytest.approx(expected["ROUGE_L"], abs=1e-4)
    assert scores["cider"].value == pytest.approx(expected["CIDEr"], abs=1e-4)
    assert scores["cider"].unit == "caption"


def test_the_order_of_the_ids_does_not_matter(settings):
    turned = dict(reversed(CAPTIONS.items()))
    one, other = (
        score_captions(captions, REFERENCES, WORDS, IMAGES, settings)
        for captions in (CAPTIONS, turned)
    )
    assert {k: s.as_record() for k, s in one.items()} == {
        k: s.as_record() for k, s in other.items()
    }


def test_a_missing_prediction_is_an_empty_caption_and_a_surplus_one_is_left_out(settings):
    partly = {"a/1": "a red cup", "b/1": "a dog runs", "x/9": "a hat", "x/8": "hats"}
    with pytest.warns(UserWarning) as said:
        scores = score_captions(partly, REFERENCES, WORDS, IMAGES, settings)
    messages = [str(warning.message) for warning in said]
    assert messages == [
        "1 references have no prediction and score as empty captions: a/2",
        "2 predictions have no reference and are left out: x/9, x/8",
    ]
    whole = {"a/1": "a red cup", "a/2": "", "b/1": "a dog runs"}
    empty = score_captions(whole, REFERENCES, WORDS, IMAGES, settings)
    for name, score in scores.items():
        assert (score.missing, score.surplus, score.count) == (1, 2, 3)
        assert score.value == empty[name].value
        assert score.by_id["a/2"] == pytest.approx(0, abs=1e-6)


def test_an_id_with_an_empty_list_of_references_counts_as_surplus(settings):
    with pytest.warns(UserWarning, match=": a/1"):
        scores = score_captions(CAPTIONS, REFERENCES | {"a/1": []}, ("rouge_l",), IMAGES, settings)
    assert list(scores["rouge_l"].by_id) == ["a/2", "b/1"]


ODD = [
    "",
    "   ",
    "cup",
    "一只红色的杯子",
    "a " * 20_000,
    "🐕",
    "\x00\n\t",
    "||| - '' ``",
    "\ud800",
    "A.",
]


@pytest.mark.parametrize("caption", ODD)
@pytest.mark.parametrize("tokens", ["whitespace", "ptb"])
def test_odd_captions_are_scored_among_others(caption, tokens, settings):
    captions = CAPTIONS | {"a/1": caption}
    chosen = MetricSettings(tokenizer=tokens, wordnet=settings.wordnet, samples=10)
    scores = score_captions(captions, REFERENCES, WORDS, IMAGES, chosen)
    for score in scores.values():
        assert 0 < score.value < 10
        assert 0 <= score.by_id["a/1"] < 0.9
        assert score.tokenizer == tokens
    if not caption.strip():
        assert scores["rouge_l"].by_id["a/1"] == scores["meteor"].by_id["a/1"] == 0


@pytest.mark.parametrize(
    ("captions", "references", "said"),
    [
        ({"a": None}, {"a": ["x"]}, "'a': a caption or reference is text, not None"),
        ({"a": "x"}, {"a": ["x", 3]}, "'a': a caption or reference is text, not 3"),
        ({1: "x"}, {"1": ["x"]}, "no prediction has the id of a reference: 1 is one"),
        ({}, {"1": ["x"]}, "no prediction has the id of a reference"),
        ({"a": "x"}, {}, "no reference"),
        ({"a": "x"}, {"a": []}, "no reference"),
    ],
)
def test_what_cannot_be_scored_is_named_before_the_work(captions, references, said):
    with pytest.raises(ValueError, match=said):
        score_captions(captions, references, ("bleu",))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="not spice"):
        score_captions(CAPTIONS, REFERENCES, ("bleu", "spice"))
    with pytest.raises(ValueError, match="'b/1'"):
        score_captions(CAPTIONS, REFERENCES, ("bleu",), {"a/1": 0, "a/2": 0})
    with pytest.raises(ValueError, match=r"meteor\n.*'nltk' or 'java'"):
        MetricSettings(meteor="rust")
    with pytest.raises(ValueError, match=r"tokenizer\n.*'ptb' or 'whitespace'"):
        MetricSettings(tokenizer="moses")


def test_a_metric_may_be_named_alone(settings):
    assert list(score_captions(CAPTIONS, REFERENCES, "cider", settings=settings)) == ["cider"]


def test_bertscore_without_a_model_has_no_value_and_says_why(tmp_path):
    chosen = MetricSettings(bertscore_model=str(tmp_path), progress=False)
    (score,) = score_captions(CAPTIONS, REFERENCES, "bertscore", settings=chosen).values()
    assert score.value is None and "cannot be loaded" in score.reason
    assert str(score).startswith("BERTScore: - (")


def test_two_systems_are_compared_on_the_same_images(settings):
    worse = CAPTIONS | {"b/1": "a hat"}
    scores = [
        score_captions(captions, REFERENCES, WORDS, IMAGES, settings)
        for captions in (CAPTIONS, worse)
    ]
    found = compare_scores(*scores, settings)
    assert sorted(found) == sorted(KEYS)
    for one in found.values():
        assert one.difference == pytest.approx(one.first - one.second)
        assert one.difference > 0 and one.low == pytest.approx(0, abs=0.02)
        assert one.units == 2 and 0 < one.p_value <= 1
