"""CLAIR: the prompt, the reading of replies, and a judge that fails in every way."""

from __future__ import annotations

import json
import threading

import pytest
from faults.server import FaultyServer, error, say
from tiny_models import tiny_tokenizer

from ureca_lib.chat import (
    AnnotatorUnavailableError,
    ChatReply,
    NoAnswerError,
    OpenAIChat,
    TransformersChat,
)
from ureca_lib.evaluate.clair import (
    ClairSettings,
    Judged,
    clair_prompt,
    make_judge,
    parse_verdict,
    score_clair,
)
from ureca_lib.evaluate.scores import compare_scores
from ureca_lib.journal import Journal, JournalError, read_journal

QUIET = ClairSettings(progress=False, samples=50)
REFERENCES = {"a/1": ["a red cup"], "a/2": ["a blue cup", "a cup"], "b/1": ["a dog"]}
CAPTIONS = {"a/1": "a red mug", "a/2": "a plate", "b/1": "a brown dog"}
IMAGES = {"a/1": "a", "a/2": "a", "b/1": "b"}


class ScriptedJudge:
    """Answers by what the caption is; an exception is raised."""

    name, answer_settings = "scripted:1", {"temperature": 0.0}

    def __init__(self, replies: dict, max_in_flight: int = 2):
        self.replies, self.max_in_flight = replies, max_in_flight
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def ask(self, prompt: str) -> ChatReply:
        caption = prompt.split("Candidate set:\n- ")[1].split("\n")[0]
        with self._lock:
            self.asked.append(caption)
            reply = self.replies[caption]
            reply = reply.pop(0) if isinstance(reply, list) else reply
        if isinstance(reply, Exception):
            raise reply
        return ChatReply(reply, 10, 5)


def scored(number: float) -> str:
    return json.dumps({"score": number, "reason": "because"})


GOOD = {"a red mug": scored(80), "a plate": scored(10), "a brown dog": scored(90)}


def test_the_prompt_is_the_papers():
    assert clair_prompt("a\nred cup {x}", ["one", "two"]) == (
        "You are trying to tell if a candidate set of captions is describing the same image as a "
        "reference set of captions.\nCandidate set:\n- a red cup {x}\n\nReference set:\n- one\n"
        "- two\n\nOn a precise scale from 0 to 100, how likely is it that the candidate set is "
        'describing the same image as the reference set? (JSON format, with a key "score", value '
        'between 0 and 100, and a key "reason" with a string value.)\n'
    )


@pytest.mark.parametrize(
    ("reply", "score", "parsed"),
    [
        ('{"score": 85, "reason": "both {red}"}', 85, "json"),
        ('Sure!\n```json\n{"score": "72.5"}\n```', 72.5, "json"),
        ('<think>{"score": 3}, or 4</think>{"score": 40}', 40, "json"),
        ('{"score": 3}? No.\n</think>{"score": 40}<|im_end|>', 40, "json"),
        ("All of 3 agree: <answer>85</answer>", 85, "number"),
        ("$\\boxed{85}$", 85, "number"),
        ('{"why": {"score": 30}}', 30, "json"),
        ('{"score": 0}', 0, "json"),
        ("85", 85, "number"),
        ("85/100. Reason: alike", 85, "number"),
        ("The score is 0.85", 85, "number"),
        ("On a scale from 0 to 100 the score: 70", 70, "number"),
        ('{"score": 60, "reason": "cut o', 60, "number"),
        ('{"score": 850}', None, None),
        ('{"score": NaN}', None, None),
        ('{"score": true}', None, None),
        ('{"score": -5}', None, None),
        ("On a scale from 0 to 100 I would say 85", None, None),
        ("I cannot say.", None, None),
        ("these 2 captions show 3 cups", None, None),
        ("score 20 or score 30", None, None),
        ("250", None, None),
        ("", None, None),
        ("{" * 2000, None, None),
    ],
)
def test_replies_are_read_or_not_guessed_at(reply, score, parsed):
    verdict = parse_verdict(reply)
    assert (verdict.score, verdict.parsed) == (score, parsed)


def test_the_mean_of_the_replies_with_the_replies_logged(tmp_path):
    log = tmp_path / "clair.jsonl"
    score = score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD), log, IMAGES, QUIET)
    assert score.value == pytest.approx(0.6)
    assert score.by_id == pytest.approx({"a/1": 0.8, "a/2": 0.1, "b/1": 0.9})
    assert score.low == pytest.approx(0.45) and score.high == pytest.approx(0.9)
    assert (score.units, score.unit, score.model) == (2, "image", "scripted:1")
    entries = list(read_journal(log, Judged.from_row))
    assert {entry.prompt for entry in entries} == {
        clair_prompt(CAPTIONS[one], REFERENCES[one]) for one in REFERENCES
    }
    assert {entry.reply for entry in entries} == set(GOOD.values())
    assert all(entry.reason == "because" and entry.time > 0 for entry in entries)


def test_a_finished_run_is_computed_again_from_the_log_alone(tmp_path):
    log = tmp_path / "clair.jsonl"
    first = score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD), log, IMAGES, QUIET)
    silent = ScriptedJudge({})
    again = score_clair(CAPTIONS, REFERENCES, silent, log, IMAGES, QUIET)
    alone = score_clair(CAPTIONS, REFERENCES, None, log, IMAGES, QUIET)
    assert not silent.asked
    assert first.as_record() == again.as_record() == alone.as_record()


def test_no_judge_no_score(tmp_path):
    score = score_clair(CAPTIONS, REFERENCES, None)
    assert score.value is None and "needs a judge" in score.reason
    (tmp_path / "log.jsonl").write_text("")
    score = score_clair(CAPTIONS, REFERENCES, None, tmp_path / "log.jsonl")
    assert score.value is None and "log.jsonl holds no reply" in score.reason


def test_an_unreadable_reply_is_asked_again_then_kept_and_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    judge = ScriptedJudge(GOOD | {"a plate": "no idea", "a brown dog": ["hm", scored(50)]})
    score = score_clair(CAPTIONS, REFERENCES, judge, log, settings=QUIET)
    assert score.value == pytest.approx((0.8 + 0.5) / 2)
    assert score.settings["unread"] == 1
    assert [entry.reply for entry in list(read_journal(log, Judged.from_row))].count("no idea") == 3
    assert judge.asked.count("a brown dog") == 2
    after = ScriptedJudge(GOOD)
    assert score_clair(CAPTIONS, REFERENCES, after, log, settings=QUIET).value == score.value
    assert not after.asked


def test_a_question_without_an_answer_is_asked_again_in_the_next_run(tmp_path):
    log = tmp_path / "log.jsonl"
    lost = ScriptedJudge(GOOD | {"a plate": NoAnswerError("lost")})
    score = score_clair(CAPTIONS, REFERENCES, lost, log, settings=QUIET)
    assert score.settings["unanswered"] == 1 and score.value == pytest.approx(0.85)
    assert "lost" in [entry.error for entry in list(read_journal(log, Judged.from_row))]
    next_run = ScriptedJudge(GOOD)
    score = score_clair(CAPTIONS, REFERENCES, next_run, log, settings=QUIET)
    assert next_run.asked == ["a plate"] and score.value == pytest.approx(0.6)


def test_all_replies_unreadable_is_no_score(tmp_path):
    judge = ScriptedJudge(dict.fromkeys(GOOD, "no idea"))
    score = score_clair(CAPTIONS, REFERENCES, judge, tmp_path / "log.jsonl", settings=QUIET)
    assert score.value is None and score.settings["unread"] == 3


def test_empty_captions_score_nothing_and_are_not_asked_about(tmp_path):
    judge = ScriptedJudge(GOOD)
    captions = {"a/1": "a red mug", "a/2": "  "}
    with pytest.warns(UserWarning, match="1 references have no prediction"):
        score = score_clair(captions, REFERENCES, judge, tmp_path / "log.jsonl", settings=QUIET)
    assert judge.asked == ["a red mug"]
    assert score.by_id == pytest.approx({"a/1": 0.8, "a/2": 0, "b/1": 0})
    assert score.settings["empty"] == 2


def test_a_judge_that_is_gone_ends_the_run_and_keeps_what_it_said(tmp_path):
    log = tmp_path / "log.jsonl"
    gone = ScriptedJudge(GOOD | {"a brown dog": AnnotatorUnavailableError("gone")}, 1)
    with pytest.raises(AnnotatorUnavailableError, match=r"gone; .*log\.jsonl: run again"):
        score_clair(CAPTIONS, REFERENCES, gone, log, settings=QUIET)
    back = ScriptedJudge(GOOD)
    assert score_clair(CAPTIONS, REFERENCES, back, log, settings=QUIET).value == pytest.approx(0.6)
    assert back.asked == ["a brown dog"]


def test_a_line_that_a_kill_cut_is_dropped_and_asked_again(tmp_path):
    log = tmp_path / "log.jsonl"
    score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD, 1), log, settings=QUIET)
    log.write_bytes(log.read_bytes()[:-20])
    judge = ScriptedJudge(GOOD)
    score = score_clair(CAPTIONS, REFERENCES, judge, log, settings=QUIET)
    assert judge.asked == ["a brown dog"] and score.value == pytest.approx(0.6)
    assert len(list(read_journal(log, Judged.from_row))) == 3


def test_a_log_at_fault_is_named(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"judge": 1}\n')
    with pytest.raises(JournalError, match=r"log\.jsonl: line 1"):
        score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD), log)
    log.write_text("")
    with Journal(log), pytest.raises(JournalError, match="another process"):
        score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD), log)
    with pytest.raises(ValueError, match="path of a log"):
        score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD))


def test_judges_and_settings_are_not_mixed_up(tmp_path):
    log = tmp_path / "log.jsonl"
    score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD), log, settings=QUIET)
    other = ScriptedJudge(dict.fromkeys(GOOD, scored(20)))
    other.answer_settings = {"temperature": 1.0}
    score = score_clair(CAPTIONS, REFERENCES, other, log, settings=QUIET)
    assert score.value == pytest.approx(0.2) and len(other.asked) == 3
    with pytest.raises(ValueError, match="2 judges or settings"):
        score_clair(CAPTIONS, REFERENCES, None, log, settings=QUIET)


def test_two_systems_are_compared_pair_by_pair(tmp_path):
    good = score_clair(CAPTIONS, REFERENCES, ScriptedJudge(GOOD), tmp_path / "1", settings=QUIET)
    judge = ScriptedJudge({"x": scored(5)})
    captions = dict.fromkeys(CAPTIONS, "x")
    bad = score_clair(captions, REFERENCES, judge, tmp_path / "2", settings=QUIET)
    found = compare_scores({"clair": good}, {"clair": bad}, QUIET)["clair"]
    assert found.difference == pytest.approx(0.55) and found.low > 0


def test_a_server_as_judge(tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="the openai extra is not installed")
    key = "sk-marker-7f3a9c51d2e8"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    log = tmp_path / "log.jsonl"
    with FaultyServer([error(500), say(scored(80)), say(f"{key} 7, 8")], say(scored(40))) as server:
        settings = {"api_key_env": "OPENAI_API_KEY", "max_in_flight": 1, "backoff": 0.01}
        judge = make_judge("openai", "tiny", server.url, **settings)
        assert isinstance(judge, OpenAIChat)
        score = score_clair(CAPTIONS, REFERENCES, judge, log, settings=QUIET)
    assert score.value == pytest.approx((0.8 + 0.4 + 0.4) / 3)
    assert score.label == "CLAIR (openai:tiny)"
    # the key of stored replies: another form would ask them again
    asked = {"temperature": 0.0, "max_reply_tokens": 1024, "extra": {}}
    first, *_ = read_journal(log, Judged.from_row)
    assert score.settings["judge"] == first.settings == asked
    assert server.seen[0].texts == [clair_prompt("a red mug", ["a red cup"])]
    assert server.seen[0].body["max_tokens"] == 1024
    assert server.seen[0].body["temperature"] == 0
    assert key not in log.read_text() and "[key] 7, 8" in log.read_text()


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A tiny random chat model of Qwen2's class."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("judge")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_model_as_judge_that_says_nothing_of_use(tmp_path, chat_model):
    judge = make_judge("transformers", str(chat_model), max_reply_tokens=4)
    score = score_clair(
        CAPTIONS, REFERENCES, judge, tmp_path / "log.jsonl", settings=ClairSettings(tries=1)
    )
    entries = list(read_journal(tmp_path / "log.jsonl", Judged.from_row))
    assert len(entries) == 3 and all(1 <= entry.reply_tokens <= 4 for entry in entries)
    assert judge.ask("x") == judge.ask("x")
    assert judge.answer_settings == {"dtype": "auto", "max_new_tokens": 4}
    read = [entry for entry in entries if entry.score is not None]
    assert score.settings["unread"] == 3 - len(read)


def test_judges_by_name(chat_model, monkeypatch, tmp_path):
    assert make_judge("none") is None
    judge = make_judge("transformers", str(chat_model))
    assert isinstance(judge, TransformersChat) and judge.batch_size == 1
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for wrong in (("gpt",), ("openai",), ("none", "m"), ("transformers", "m", "http://x/v1")):
        with pytest.raises(ValueError, match=r"judge|model"):
            make_judge(*wrong)
    with pytest.raises(AnnotatorUnavailableError, match="cannot be loaded"):
        make_judge("transformers", str(tmp_path / "nothing"))
