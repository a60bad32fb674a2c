"""METEOR by nltk, with a tiny WordNet, without one, and with the real one where it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from evaluate.sentences import peer_pairs
from evaluate.wordnet_folder import write_wordnet
from nltk.translate.meteor_score import meteor_score

from ureca_lib.evaluate import meteor as module
from ureca_lib.evaluate.meteor import Synonyms, find_wordnet, meteor

NONE = Synonyms(None, "none")


@pytest.fixture
def tiny(tmp_path) -> Synonyms:
    return find_wordnet(write_wordnet(tmp_path / "wordnet", lexnames=False))


def words_of(synonyms: Synonyms, word: str) -> set[str]:
    return {lemma.name() for sense in synonyms.synsets(word) for lemma in sense.lemmas()}


def test_a_folder_of_wordnet_files_is_read_though_debian_leaves_lexnames_out(tiny):
    assert tiny and tiny.version == "3.0"
    assert words_of(tiny, "mug") == {"cup", "mug"}
    assert words_of(tiny, "children") == {"child", "kid", "small_fry"}
    assert words_of(tiny, "zebra") == set()


def test_a_folder_with_lexnames_gives_the_same(tmp_path, tiny):
    whole = find_wordnet(write_wordnet(tmp_path / "whole"))
    assert words_of(whole, "cups") == words_of(tiny, "cups") == {"cup", "mug"}


def test_a_folder_without_wordnet_is_named(tmp_path):
    with pytest.raises(ValueError, match="empty: no WordNet"):
        find_wordnet(tmp_path / "empty")


def test_synonyms_count_and_the_name_says_where_they_do_not(tiny):
    pairs = [("a red mug", ["a red cup"])]
    (with_them,), (without,) = meteor(pairs, tiny), meteor(pairs, NONE)
    # three matches in one chunk; two of three matches in one chunk
    assert with_them.tally.value == pytest.approx(1 - 0.5 / 27)
    assert without.tally.value == pytest.approx(2 / 3 * (1 - 0.5 / 8))
    assert with_them.label == "METEOR (nltk)"
    assert without.label == "METEOR without synonyms (nltk)"
    assert without.backend == "nltk.meteor_score_without_synonyms"
    assert (with_them.model, without.model) == ("WordNet 3.0", None)
    assert with_them.settings["synonyms"] and not without.settings["synonyms"]


def test_it_is_nltks_own_figure(tiny):
    texts = [
        ("The mugs are red , running", ["a cup is red and runs", "mugs run"]),
        ("children cups cup mug", ["kid mug cup children"]),
        ("a a a b", ["a b a b"]),
    ]
    for synonyms in (tiny, NONE):
        (measured,) = meteor(texts, synonyms)
        expected = [
            meteor_score([r.split() for r in references], caption.split(), wordnet=synonyms)
            for caption, references in texts
        ]
        assert measured.captions.tolist() == expected
        assert all(0 < value <= 1 for value in expected)


def test_odd_captions_score_nothing_or_something_but_never_fail():
    texts = ["", "   ", "cup", "一只狗", "Ünïcödé 'tis ...", "a " * 5000, "\x00", "-" * 3000]
    (measured,) = meteor([(text, ["a red cup", ""]) for text in texts], NONE)
    assert measured.captions[:2].tolist() == [0, 0]
    assert measured.captions[2] > 0 and measured.captions[5] > 0
    assert measured.captions[3] == 0


def no_corpus():
    raise LookupError("no corpus")


def test_without_any_wordnet_there_are_no_synonyms_and_a_warning_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "wordnet", SimpleNamespace(ensure_loaded=no_corpus))
    monkeypatch.setattr(module, "DEBIAN_FOLDER", tmp_path)
    module._without.cache_clear()
    with pytest.warns(UserWarning, match="METEOR without synonyms: there is no WordNet"):
        assert not find_wordnet()


def test_debians_wordnet_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "wordnet", SimpleNamespace(ensure_loaded=no_corpus))
    folder = write_wordnet(tmp_path / "debian", lexnames=False)
    monkeypatch.setattr(module, "DEBIAN_FOLDER", folder)
    found = find_wordnet()
    assert found.source == str(folder) and words_of(found, "cup") == {"cup", "mug"}


def test_the_peers_figure_by_the_real_wordnet(peer):
    synonyms = find_wordnet()
    if not synonyms:
        pytest.skip("no WordNet here: install Debian's wordnet-base or nltk's corpus wordnet")
    pairs, expected = peer_pairs(peer, "files")
    (measured,) = meteor(pairs, synonyms)
    assert measured.tally.value == pytest.approx(expected["METEOR_nltk_default"], abs=1e-4)
