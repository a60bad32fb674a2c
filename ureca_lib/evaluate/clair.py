"""CLAIR (Chan et al., EMNLP 2023): a language model rates whether captions are of one image.

The prompt, `clair_prompt.txt`, is that of the authors' code. Their code gives 0 to a reply without
a score and takes the first number it finds; here such a reply has no score, is counted, and is in
the log with the rest. Without a judge only an empty caption is scored, with 0.

The log has every question and reply, one per line; scores are computed from it.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass
from tqdm.auto import tqdm

from ureca_lib.annotate.replies import final_answer
from ureca_lib.chat import (
    AnnotatorUnavailableError,
    BudgetSpentError,
    ChatModel,
    NoAnswerError,
    make_chat,
)
from ureca_lib.evaluate.metrics import Predictions, References, match_captions
from ureca_lib.evaluate.scores import Score, measured, with_intervals
from ureca_lib.evaluate.settings import ClairSettings
from ureca_lib.journal import Journal, read_journal
from ureca_lib.listeners import in_threads

_PROMPT = (resources.files("ureca_lib") / "evaluate/clair_prompt.txt").read_text("utf-8")
_BACKEND = ("ureca_lib, prompt of Chan et al. 2023", "2023")
NO_JUDGE = "CLAIR needs a judge, and none was given"
MAX_REPLY_TOKENS = 1024  # as clair.py of Chan et al. 2023 allows
_NUMBER = r"(?<![\w.-])\d*\.?\d+(?![\w.]*\d)"
_NAMED = re.compile(rf"score\b[\"'*\s]*(?:[:=]|is|of)?[\"'*\s]*({_NUMBER})", re.IGNORECASE)
_ANY = re.compile(_NUMBER)


class Verdict(NamedTuple):
    """Score of 0 to 100 and reason of a reply, or None; and how the score was found."""

    score: float | None
    reason: str | None = None
    parsed: str | None = None


@dataclass(frozen=True)
class Judged:
    """A reply, or the lack of one: a line of the log.

    Args:
        judge, settings: name and settings of the judge.
        prompt: the whole question.
        reply: as received; None if there is none, and `error` says why.
        problem: the server's remark on the reply, for instance that it was cut off.
        score: 0 to 100, or None if the reply has none.
        reason: the judge's reason for it.
        parsed: how the score was found: "json" or "number".
        prompt_tokens, reply_tokens: as the judge counts them.
        time: seconds since 1970.
    """

    judge: str
    settings: Mapping[str, Any]
    prompt: str
    reply: str | None
    problem: str | None = None
    score: float | None = None
    reason: str | None = None
    parsed: str | None = None
    error: str | None = None
    prompt_tokens: int = 0
    reply_tokens: int = 0
    time: float = 0.0

    @property
    def asked(self) -> str:
        """The judge and its settings as one text."""
        return json.dumps([self.judge, dict(self.settings)], sort_keys=True)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Judged:
        """Check a line of a log."""
        return cls(**row)


def make_judge(
    kind: str, model: str | None = None, base_url: str | None = None, **options: Any
) -> ChatModel | None:
    """A judge by name, for commands and notebooks; None for "none".

    Args:
        kind: "none", or a kind of `make_chat`.
        model, base_url, options: of `make_chat`.

    Raises:
        ValueError: no such kind or device, options that do not go together, or no key for OpenAI.
        ImportError: "openai" without the extra of that name.
        AnnotatorUnavailableError: the model cannot be loaded.
    """
    if kind == "none":
        given = {name for name, value in options.items() if value is not None} - {"device"}
        if model or base_url or given:
            raise ValueError("model, address, key and settings go with a judge: give --judge")
        return None
    options = {"max_reply_tokens": MAX_REPLY_TOKENS} | options
    if kind == "transformers":
        options["batch_size"] = 1  # padding changes digits, and so a score in rare cases
    return make_chat(kind, model, base_url, **options)


def clair_prompt(caption: str, references: Sequence[str]) -> str:
    """The question about a caption; line ends in captions become blanks."""
    candidate, *targets = (
        f"- {_whole(' '.join(text.split()))}\n" for text in (caption, *references)
    )
    return _PROMPT.format(candidate_statements=candidate, target_statements="".join(targets))


def _whole(text: str) -> str:
    """The text without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def parse_verdict(text: str) -> Verdict:
    """Read a reply: a JSON object with a score, else the number that it calls its score.

    A number outside of 0 to 100 is not a score, nor is one of several numbers of which none is
    called the score.
    """
    text = final_answer(text)
    for match in re.finditer(r"\{", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, match.start())
            reason, score = found.get("reason"), found["score"]
            if isinstance(score, bool):
                continue
            score = float(score)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        reason = None if reason is None else str(reason)
        return Verdict(score, reason, "json") if 0 <= score <= 100 else Verdict(None)
    named = _NAMED.findall(text)
    numbers = named or _ANY.findall(re.sub(r"(?:/|out of)\s*100\b", "", text))
    if len(set(numbers)) != 1:
        return Verdict(None)
    score = float(numbers[0])
    # as the authors' code: some models scale it by themselves
    score = 100 * score if 0 < score < 1 else score
    found = re.search(r"reason\W*(.*)", text, re.IGNORECASE)
    reason = found.group(1).strip() if found else None
    return Verdict(score, reason, "number") if score <= 100 else Verdict(None)


def score_clair(
    predictions: Predictions,
    references: References,
    judge: ChatModel | None,
    log: str | Path | None = None,
    groups: Mapping[Hashable, Hashable] | None = None,
    settings: ClairSettings | None = None,
) -> Score:
    """Mean CLAIR of captions, 0 to 1, over those whose reply has a score.

    Replies in the log are not asked for again, so that an interrupted run resumes, and a finished
    run is computed again from predictions and log alone.

    Args:
        predictions, references, groups: as of `score_captions`.
        judge: the model to ask; None takes the replies in the log.
        log: JSON Lines file of the replies; needed with a judge.
        settings: number of tries, and the bootstrap.

    Returns:
        The score; without a value, and with the reason, if there is neither judge nor log. Its
        settings count `unread` replies, `unanswered` questions and `empty` captions.

    Raises:
        ValueError: no log for a judge, a log of several judges without one, or captions at fault.
        JournalError: a log that cannot be read or is open elsewhere.
        BudgetSpentError, AnnotatorUnavailableError: the judge answers no more; its replies so far
            are in the log.
    """
    settings = settings or ClairSettings()
    pairs, counts = match_captions(predictions, references)
    prompts = [clair_prompt(*pair) if pair[0].strip() else None for pair in pairs.values()]
    entries, reason = [], NO_JUDGE
    if judge is not None:
        entries = _ask_all(prompts, judge, log, settings)
    elif log is not None and Path(log).is_file():
        entries, reason = list(read_journal(log, Judged.from_row)), f"{log} holds no reply"
        if (number := len({entry.asked for entry in entries})) > 1:
            raise ValueError(f"{log} holds replies of {number} judges or settings: name one")
    if not entries and judge is None:
        score = Score("clair", "CLAIR", None, reason=reason, count=len(pairs))
    else:
        # a judge that was asked nothing, because all captions are empty, has no entry
        asked = _unasked(judge) if judge is not None else asdict(entries[0])
        replies, scores = _replies(entries)
        values = [0.0 if p is None else scores.get(p, math.nan) / 100 for p in prompts]
        record = {
            "judge": dict(asked["settings"]),
            "tries": settings.tries,
            "unread": sum(p in replies and p not in scores for p in prompts),
            "unanswered": sum(p is not None and p not in replies for p in prompts),
            "empty": prompts.count(None),
        }
        about = ("clair", f"CLAIR ({asked['judge']})", np.array(values), *_BACKEND)
        score = measured(*about, model=asked["judge"], settings=record)
    return with_intervals([score], tuple(pairs), groups, settings, **counts)["clair"]


def _unasked(judge: ChatModel) -> dict[str, Any]:
    """The fields of an entry that name the judge; it is shown no image."""
    settings = {n: value for n, value in judge.answer_settings.items() if n != "image_format"}
    return {"judge": judge.name, "settings": settings}


def _replies(entries: Sequence[Judged]) -> tuple[Counter[str], dict[str, float]]:
    """The number of replies to each question, and the first score of each that has one."""
    replies = Counter(entry.prompt for entry in entries if entry.reply is not None)
    return replies, {e.prompt: e.score for e in reversed(entries) if e.score is not None}


def _ask_all(
    prompts: Sequence[str | None],
    judge: ChatModel,
    log: str | Path | None,
    settings: ClairSettings,
) -> list[Judged]:
    """Ask the questions without a score, many at a time; all replies of this judge in the log."""
    if log is None:
        raise ValueError("CLAIR records the judge's replies: give the path of a log")
    with Journal(log, Judged.from_row) as journal:
        this = Judged(**_unasked(judge), prompt="", reply=None).asked
        entries = [entry for entry in journal.rows if entry.asked == this]
        replies, scores = _replies(entries)
        left = [p for p in dict.fromkeys(filter(None, prompts)) if p not in scores]
        left = [prompt for prompt in left if replies[prompt] < settings.tries]

        def ask(prompt: str) -> None:
            """Ask until a reply has a score."""
            for _ in range(settings.tries - replies[prompt]):
                entry = _answer(judge, prompt)
                journal.append(asdict(entry))
                entries.append(entry)
                if entry.score is not None or entry.error:
                    return

        done = in_threads(ask, left, judge.max_in_flight)
        try:
            list(tqdm(done, "CLAIR", len(left), disable=not settings.progress, leave=False))
        except (BudgetSpentError, AnnotatorUnavailableError) as error:
            message = f"{error}; the replies so far are in {log}: run again to go on"
            raise type(error)(message) from error
    return entries


def _answer(judge: ChatModel, prompt: str) -> Judged:
    about = _unasked(judge) | {"prompt": prompt, "time": time.time()}
    try:
        reply = judge.ask(prompt)
    except NoAnswerError as error:
        return Judged(**about, reply=None, error=str(error))
    text = _whole(reply.text)
    about |= {"problem": reply.problem, "reply_tokens": reply.reply_tokens}
    about |= {"prompt_tokens": reply.prompt_tokens, **parse_verdict(text)._asdict()}
    return Judged(**about, reply=text)
