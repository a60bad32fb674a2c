"""CLAIR (Chan et al., EMNLP 2023): a language model says how likely captions speak of one image.

The prompt is that of the authors' code. Theirs gives 0 to a reply without a score and takes the
first number it finds; here such a reply has no score, is counted, and stands in the log with the
rest. Nothing is scored without a judge but an empty caption, which gets 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ureca_lib.annotate.replies import final_answer
from ureca_lib.chat import (
    AnnotatorUnavailableError,
    BudgetSpentError,
    ChatModel,
    NoAnswerError,
    make_chat,
)
from ureca_lib.evaluate.bootstrap import BootstrapSettings, group_codes
from ureca_lib.evaluate.judge_log import Judged, JudgeLog, identity, read_judge_log
from ureca_lib.evaluate.metrics import (
    Matched,
    Predictions,
    References,
    match_captions,
    with_intervals,
)
from ureca_lib.evaluate.scores import Measured, Score, mean_tally, scored, without_value

PROMPT = """\
You are trying to tell if a candidate set of captions is describing the same image as a reference \
set of captions.
Candidate set:
{candidate_statements}
Reference set:
{target_statements}
On a precise scale from 0 to 100, how likely is it that the candidate set is describing the same \
image as the reference set? (JSON format, with a key "score", value between 0 and 100, and a key \
"reason" with a string value.)
"""
NO_JUDGE = "CLAIR needs a judge, and none was given"
MAX_REPLY_TOKENS = 1024  # as clair.py of Chan et al. 2023 allows
_NUMBER = r"(?<![\w.-])\d*\.?\d+(?![\w.]*\d)"
_NAMED = re.compile(rf"score\b[\"'*\s]*(?:[:=]|is|of)?[\"'*\s]*({_NUMBER})", re.IGNORECASE)
_ANY = re.compile(_NUMBER)


@dataclass(frozen=True)
class ClairSettings:
    """How the judge is asked."""

    tries: int = field(
        default=3, metadata={"help": "most replies to one question until one has a score"}
    )
    bootstrap: BootstrapSettings = field(
        default_factory=BootstrapSettings, metadata={"help": "how intervals are drawn"}
    )
    progress: bool = field(default=True, metadata={"help": "show a bar"})

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is at least 1, not {self.tries}")


@dataclass(frozen=True)
class Verdict:
    """What a reply says: a score of 0 to 100 and a reason, or None; and how it was found."""

    score: float | None
    reason: str | None = None
    parsed: str | None = None


class JudgeStoppedError(RuntimeError):
    """The judge answers no more; what it answered is in the log, and is not asked again."""


def make_judge(
    kind: str,
    model: str | None = None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
    **settings: Any,
) -> ChatModel | None:
    """A judge by name, for commands and notebooks; None for "none".

    Args:
        kind: "none", or a kind of `make_chat`.
        model, base_url, device, api_key_env, settings: as `make_chat` takes them.

    Raises:
        ValueError: no such kind or device, options that do not go together, or no key for OpenAI.
        ImportError: "openai" without the extra of that name.
        AnnotatorUnavailableError: the model cannot be loaded.
    """
    if kind == "none":
        if model or base_url or api_key_env or settings:
            raise ValueError("model, address, key and settings go with a judge: give --judge")
        return None
    settings = {"max_reply_tokens": MAX_REPLY_TOKENS} | settings
    if kind == "transformers":
        settings["batch_size"] = 1  # padding changes digits, and so a score in rare cases
    return make_chat(kind, model, base_url, device, api_key_env, **settings)


def clair_prompt(caption: str, references: Sequence[str]) -> str:
    """The question about one caption; line ends in captions become blanks."""
    candidate, *targets = (
        f"- {_whole(' '.join(text.split()))}\n" for text in (caption, *references)
    )
    return PROMPT.format(candidate_statements=candidate, target_statements="".join(targets))


def _whole(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def parse_verdict(text: str) -> Verdict:
    """Read a reply: a JSON object with a score, else the number that it calls its score.

    A score out of 0 to 100, or one of several numbers of which none is called the score, is none.
    """
    text = final_answer(text)
    for match in re.finditer(r"\{", text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, match.start())
            score = found["score"]
            if isinstance(score, bool):
                continue
            score = float(score)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if not 0 <= score <= 100:
            return Verdict(None)
        reason = found.get("reason")
        return Verdict(score, None if reason is None else str(reason), "json")
    return _verdict_in_words(text)


def _verdict_in_words(text: str) -> Verdict:
    named = [match.group(1) for match in _NAMED.finditer(text)]
    numbers = named or _ANY.findall(re.sub(r"(?:/|out of)\s*100\b", "", text))
    if len(set(numbers)) != 1:
        return Verdict(None)
    score = float(numbers[0])
    if 0 < score < 1:
        score *= 100  # as the authors' code: some models scale it by themselves
    if score > 100:
        return Verdict(None)
    reason = re.search(r"reason\W*(.*)", text, re.IGNORECASE)
    return Verdict(score, reason.group(1).strip() if reason else None, "number")


def score_clair(
    predictions: Predictions,
    references: References,
    judge: ChatModel | None,
    log: str | Path | None = None,
    groups: Mapping[Hashable, Hashable] | None = None,
    settings: ClairSettings | None = None,
) -> Score:
    """Mean CLAIR of captions, 0 to 1, over those whose reply has a score.

    Replies in the log are not asked for again, so that a run that was stopped goes on, and a
    finished one is computed again from predictions and log alone.

    Args:
        predictions, references, groups: as of `score_captions`.
        judge: whom to ask; None takes what the log holds.
        log: JSON Lines file of the replies; needed with a judge.
        settings: how often to ask, and the bootstrap.

    Returns:
        The score; without a value, and with the reason, where there is neither judge nor log. Its
        settings count `unread` replies, `unanswered` questions and `empty` captions.

    Raises:
        ValueError: no log for a judge, a log of several judges without one, or captions at fault.
        JournalError: a log that cannot be read or is open elsewhere.
        JudgeStoppedError: a budget that is spent or a judge that cannot be reached.
    """
    settings = settings or ClairSettings()
    matched = match_captions(predictions, references)
    codes, units = group_codes(matched.ids, groups)
    known = {
        "ids": matched.ids,
        "groups": codes,
        "units": units,
        "unit": "caption" if groups is None else "image",
        "missing": len(matched.missing),
        "surplus": len(matched.surplus),
    }
    if judge is None and (log is None or not Path(log).is_file()):
        return without_value("clair", "CLAIR", NO_JUDGE, count=len(matched.ids), **known)
    prompts = [clair_prompt(*pair) if pair[0].strip() else None for pair in matched.pairs]
    entries, who = _entries(prompts, judge, log, settings)
    if who is None:
        reason = f"the log {Path(log).name} holds no reply"
        return without_value("clair", "CLAIR", reason, count=len(matched.ids), **known)
    score = scored(_measured(matched, prompts, entries, who, settings), **known)
    return with_intervals({"clair": score}, settings.bootstrap)["clair"]


def _entries(
    prompts: Sequence[str | None],
    judge: ChatModel | None,
    log: str | Path | None,
    settings: ClairSettings,
) -> tuple[dict[str, list[Judged]], tuple[str, Mapping] | None]:
    """The replies to each prompt, and whose they are."""
    if judge is None:
        found = read_judge_log(log)
        judges = {entry.asked: (entry.judge, entry.settings) for entry in found}
        if len(judges) > 1:
            raise ValueError(f"{log} holds replies of {len(judges)} judges or settings: name one")
        who = next(iter(judges.values()), None)
        return _by_prompt(found), who
    if log is None:
        raise ValueError("CLAIR keeps what the judge says: give the path of a log")
    who = _identity(judge)
    with JudgeLog(log) as opened:
        theirs = [entry for entry in opened.entries if entry.asked == identity(*who)]
        answered = _by_prompt(theirs)
        wanted = dict.fromkeys(prompt for prompt in prompts if prompt is not None)
        left = [p for p in wanted if not _settled(answered.get(p, []), settings.tries)]
        _ask_all(left, judge, opened, answered, settings)
        theirs = [entry for entry in opened.entries if entry.asked == identity(*who)]
    return _by_prompt(theirs), who


def _identity(judge: ChatModel) -> tuple[str, dict[str, Any]]:
    """Name and settings of a judge; the format of images decides nothing, for it is shown none."""
    settings = dict(judge.answer_settings)
    settings.pop("image_format", None)
    return judge.name, settings


def _by_prompt(entries: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for entry in entries:
        found.setdefault(entry.prompt, []).append(entry)
    return found


def _replies(entries: Sequence[Judged]) -> int:
    return sum(entry.reply is not None for entry in entries)


def _settled(entries: Sequence[Judged], tries: int) -> bool:
    return any(entry.score is not None for entry in entries) or _replies(entries) >= tries


def _ask_all(
    prompts: Sequence[str],
    judge: ChatModel,
    log: JudgeLog,
    answered: Mapping[str, Sequence[Judged]],
    settings: ClairSettings,
) -> None:
    """Ask what is left, many at a time; ends early where the judge is gone."""

    def ask(prompt: str) -> None:
        _ask(prompt, judge, log, settings.tries - _replies(answered.get(prompt, ())))

    pool = ThreadPoolExecutor(judge.max_in_flight)
    try:
        done = pool.map(ask, prompts)
        bar = tqdm(done, "CLAIR", len(prompts), disable=not settings.progress, leave=False)
        for _ in bar:
            pass
    except (BudgetSpentError, AnnotatorUnavailableError) as error:
        raise JudgeStoppedError(
            f"{error}; what was answered is in {log.path}: run again to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ask(prompt: str, judge: ChatModel, log: JudgeLog, tries: int) -> None:
    """Ask until a reply has a score; each reply goes into the log."""
    for _ in range(tries):
        who = (*_identity(judge), prompt)
        try:
            draft = judge.ask(prompt)
        except NoAnswerError as error:
            log.add(Judged(*who, None, error=str(error)))
            return
        text = _whole(draft.text)
        verdict = parse_verdict(text)
        log.add(
            Judged(
                *who,
                text,
                draft.problem,
                verdict.score,
                verdict.reason,
                verdict.parsed,
                prompt_tokens=draft.prompt_tokens,
                reply_tokens=draft.reply_tokens,
            )
        )
        if verdict.score is not None:
            return


def _measured(
    matched: Matched,
    prompts: Sequence[str | None],
    entries: Mapping[str, Sequence[Judged]],
    who: tuple[str, Mapping],
    settings: ClairSettings,
) -> Measured:
    values, unread, unanswered = [], 0, 0
    for prompt in prompts:
        replies = [] if prompt is None else entries.get(prompt, ())
        best = next((entry.score for entry in replies if entry.score is not None), None)
        heard = _replies(replies) > 0
        unread += heard and best is None
        unanswered += prompt is not None and not heard
        values.append(0.0 if prompt is None else math.nan if best is None else best / 100)
    counts = {"unread": unread, "unanswered": unanswered, "empty": prompts.count(None)}
    captions = np.array(values)
    return Measured(
        "clair",
        f"CLAIR ({who[0]})",
        mean_tally(captions),
        captions,
        "ureca_lib, prompt of Chan et al. 2023",
        "2023",
        who[0],
        {"judge": dict(who[1]), "tries": settings.tries, **counts},
    )
