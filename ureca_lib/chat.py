"""Chat models: what annotators, CLAIR judges, listeners and prompted baselines are made of.

There are two kinds. `OpenAIChat` is a model behind any server that speaks OpenAI's chat
completions: OpenAI itself, or vLLM, LMDeploy or SGLang serving InternVL2.5. `TransformersChat` is
a model of transformers in this process, which generates in batches. Both are asked by `ask`, from
any thread or notebook cell, or by `await complete(...)`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import tenacity
from PIL import Image

from ureca_lib.devices import chosen_device
from ureca_lib.event_loop import in_background, run_coroutine
from ureca_lib.options import at_least, json_object, options_of, setting

OPENAI_URL = "https://api.openai.com/v1"
KEY_HELP = (
    "Environment variable with the server's key; default: OPENAI_API_KEY at OpenAI, none elsewhere."
)
_MAX_BODY = 4 << 20  # bytes of a reply; a caption has some hundred
_MAX_BACKOFF = 60.0  # seconds
_FIRST_RETRIES = 2  # while no connection was ever made: the address may be wrong
_REFUSED_PHOTOS = 3  # number of photos whose refusals say that the server refuses everything
_TOKEN_PIXELS = 28 * 28  # pixels per token of an image, as InternVL2.5 and Qwen2-VL count
_TOKEN_CHARACTERS = 4  # estimated characters per token
_VIEW_GAP = 16  # pixels between two views in one picture
_FATAL = {401: "{key} is not accepted", 402: "the account cannot pay"}
_FATAL |= {403: "{key} may not use this model", 404: "no such model or address"}
_BUSY = (0, 408, 409, 425, 429)  # status codes that may pass; 0 is a lost or broken reply
_CUT = "was cut off before its end"
_PROBLEMS = {"length": _CUT, "content_filter": "was filtered"}
# beginnings of headers; OPENAI_ORG_ID and OPENAI_CUSTOM_HEADERS would add others. The last is a
# note of the client to itself
_HEADERS = ("host", "accept", "connection", "user-agent", "authorization", "content-")
_HEADERS += ("x-stainless-raw-response",)
_UNSUPPORTED = re.compile(
    "unsupported|not support|not allowed|not permitted|only|deprecated|unrecognized|unknown|instead"
)
_ONE_IMAGE = re.compile(
    r"at most (?:1|one) image|only (?:1|one|a single) image|multiple images|"
    r"(?:1|one|single) image (?:per|only|at a time)"
)


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Args:
        role: "user" or "assistant".
        text: of the turn.
    """

    role: str
    text: str


@dataclass(frozen=True)
class ChatReply:
    """A raw, unchecked reply.

    Args:
        text: as the model wrote it; see `final_answer`.
        prompt_tokens, reply_tokens: as the server counts them, 0 if it does not.
        attempts: number of requests that it took.
        problem: fault of the reply however it reads, such as a missing end.
        score: mean log-probability of its tokens, if the model was loaded with `with_scores`.
    """

    text: str
    prompt_tokens: int = 0
    reply_tokens: int = 0
    attempts: int = 1
    problem: str | None = None
    score: float | None = None


class NoAnswerError(RuntimeError):
    """A question without a reply; other questions may still be answered."""

    def __init__(self, message: str, attempts: int = 1):
        super().__init__(message)
        self.attempts = attempts


class BudgetSpentError(RuntimeError):
    """The budget of calls or tokens is used up; the answers so far are stored."""


class AnnotatorUnavailableError(RuntimeError):
    """The model answers no question: no such server or model, or the key is not accepted."""


class _CallError(Exception):
    """A call without a good reply.

    Args:
        status: of HTTP; 0 for a reply that is lost, late or broken.
        wait: seconds that the server asks to wait.
        reached: there was a connection.
    """

    def __init__(self, message: str, status: int = 0, wait: float = 0.0, reached: bool = True):
        super().__init__(message)
        self.status, self.wait, self.reached = status, wait, reached

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status in _BUSY or self.status >= 500


class _Form(NamedTuple):
    """Form in which a server accepts requests: changed once a refusal asks for another."""

    limit_field: str = "max_tokens"
    with_temperature: bool = True
    side_by_side: bool = False  # all views in one picture


@dataclass
class _Question:
    """A question, and what it has used up at a server."""

    turns: Sequence[Turn]
    images: Sequence[np.ndarray]
    subject: Hashable
    form: _Form | None = None  # of the latest call
    calls: int = 0
    retries: int = 0  # after faults of the server
    limited: int = 0  # refusals for asking too fast
    pause: float = 0.0  # seconds before the next call
    waited: float = 0.0  # seconds in all

    @property
    def tokens(self) -> int:
        """Estimated tokens of the prompt and the images."""
        pixels = sum(image.shape[0] * image.shape[1] for image in self.images)
        characters = sum(len(turn.text) for turn in self.turns)
        return pixels // _TOKEN_PIXELS + characters // _TOKEN_CHARACTERS


class ChatModel:
    """A model that is asked in words and pictures, from any thread and any event loop.

    Attributes:
        name: kind and model, as records name it, such as "openai:gpt-4o-mini-2024-07-18".
        model: name of the model, hub id or folder.
        max_in_flight: most questions at a time.
        give_up_after: number of questions without a reply, in a row, that ends the run.
        answer_settings: settings that decide an answer, as plain data; stored answers are keyed by
            them.
    """

    name: str
    model: str
    max_in_flight: int
    give_up_after: int
    answer_settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._without_reply: list[Hashable] = []  # subjects of the latest questions

    def ask(self, prompt: str, images: Sequence[np.ndarray] = ()) -> ChatReply:
        """Ask one question and wait for the reply; see `complete`."""
        return run_coroutine(self.complete([Turn("user", prompt)], images))

    async def complete(
        self, turns: Sequence[Turn], images: Sequence[np.ndarray] = (), subject: Hashable = None
    ) -> ChatReply:
        """Continue a conversation.

        Args:
            turns: the question, and what was said since; the last turn is the user's.
            images: (H, W, 3) uint8 each, shown before the first turn.
            subject: the photo that the question is about. A content filter may refuse all
                questions about a photo, so refusals end the run only if they concern several.

        Raises:
            NoAnswerError: this question is refused, or fails after all retries.
            BudgetSpentError: the next call may exceed the budget.
            AnnotatorUnavailableError: no question will be answered: the key is not accepted, the
                server or the model does not exist, or `give_up_after` questions in a row got no
                reply.
        """
        return await in_background(self._reply(_Question(turns, images, subject)))

    async def _reply(self, question: _Question) -> ChatReply:
        raise NotImplementedError

    def _count_lost(self, message: str, subject: Hashable = None) -> None:
        """Count a question without a reply; raise if there were too many in a row."""
        self._without_reply.append(subject)
        several = len({*self._without_reply} - {None}) >= _REFUSED_PHOTOS
        lost = sum(one is None or several for one in self._without_reply)
        if lost >= self.give_up_after:
            count = f"{lost} question{'s' * (lost > 1)} in a row"
            raise AnnotatorUnavailableError(f"{count} got no reply; the last: {message}")


@dataclass(eq=False)
class OpenAIChat(ChatModel):
    """A model behind an OpenAI-compatible server.

    The key is read from the environment when the object is made. It is sent to `base_url` alone,
    and appears in no log, error, record or `repr`. A server other than OpenAI gets no key unless
    `api_key_env` names one. No redirect is followed. The official client makes each attempt;
    tenacity repeats it, because the client's own retries neither wait as long as a server asks nor
    count against the budget.

    Attributes:
        calls: number of requests so far, retries included.
        tokens: number of tokens used so far, estimated if the server does not count them.

    Raises:
        ImportError: the `openai` package is missing.
        ValueError: a setting out of range, a bad address, or no key in the environment although
            one is named or the server is OpenAI's own.
    """

    model: str
    base_url: str | None = setting(None, "address of the server, up to /v1; None is OpenAI's own")
    api_key_env: str | None = setting(None, KEY_HELP)
    max_in_flight: int = setting(16, "most calls at a time")
    timeout: float = setting(120.0, "Most seconds per attempt; default: 120.")
    # of a question after 5xx, timeouts, lost or broken replies; after 429, max_wait alone counts
    max_retries: int = setting(6, "most retries of a question")
    backoff: float = setting(1.0, "seconds before the first retry, then doubled, with jitter")
    # Retry-After included; waiting behind other questions is not counted
    max_wait: float = setting(600.0, "most seconds that a question waits in all")
    give_up_after: int = setting(32, "number of questions in a row without reply that end the run")
    max_calls: int | None = setting(None, "budget of calls, retries included; None: no limit")
    max_tokens_total: int | None = setting(None, "budget of tokens; None: no limit")
    # None: the server's own
    temperature: float | None = setting(0.0, "Sampling temperature; default: 0.")
    max_reply_tokens: int = setting(512, "Most tokens of a reply; a longer reply is cut.")
    sampling_seed: int | None = setting(None, "Seed that the server samples with.")
    image_format: Literal["jpeg", "png"] = setting("jpeg", "jpeg (quality 95, full colors) or png")
    extra: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "More fields of the request, as JSON.",
            "limits": {"parser": json_object},
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, max_in_flight=1, max_retries=0, give_up_after=1, max_reply_tokens=1)
        at_least(self, backoff=0, max_wait=0, timeout=0.001)
        if self.image_format not in ("jpeg", "png"):
            raise ValueError(f"image_format is jpeg or png, not {self.image_format!r}")
        if taken := sorted({"messages", "model", "stream", "n"} & self.extra.keys()):
            raise ValueError(f"extra may not set {', '.join(taken)}")
        if self.sampling_seed is not None:
            self.extra = {**self.extra, "seed": self.sampling_seed}
        self._url = self.base_url or OPENAI_URL
        self._address = f"{self._url} ({self.model})"  # in errors
        self._variable, key = server_key(self._url, self.api_key_env)
        self._hide = _hider(key)
        self._client = _client(self._url, key, self.timeout)
        self.name = f"openai:{self.model}"
        self._slots = asyncio.Semaphore(self.max_in_flight)
        self._form = _Form()
        self._reached = False  # there was a connection once
        self.calls = self.tokens = 0
        self._open_at = 0.0  # (monotonic) nobody asks earlier, once the server has limited the rate

    @property
    def answer_settings(self) -> dict[str, Any]:
        """See `ChatModel`."""
        names = ("temperature", "max_reply_tokens", "image_format")
        return {name: getattr(self, name) for name in names} | {"extra": dict(self.extra)}

    async def _reply(self, question: _Question) -> ChatReply:
        attempts = tenacity.AsyncRetrying(
            retry=self._may_be_repeated, wait=lambda _: question.pause, sleep=asyncio.sleep
        )
        async with self._slots:
            try:
                reply = await attempts(self._call, question)
            except _CallError as error:
                last = error
            else:
                self._without_reply.clear()
                return replace(reply, attempts=question.calls)
        message = f"{self._address}: {last}"
        if not last.reached:
            raise AnnotatorUnavailableError(message)
        self._count_lost(message, None if last.may_pass else question.subject)
        raise NoAnswerError(message, question.calls)

    def _may_be_repeated(self, state: tenacity.RetryCallState) -> bool:
        """Whether another call may succeed: later, more slowly, or in another form."""
        question, error = state.args[0], state.outcome.exception()
        question.pause, why = 0.0, None
        if not isinstance(error, _CallError):
            return False
        if not error.may_pass:
            # another question may have changed the form since this one was sent
            return question.form != self._form or self._adapt(str(error), question)
        tries = question.limited if error.status == 429 else question.retries
        backoff = min(_MAX_BACKOFF, self.backoff * 2.0 ** min(tries, 60))
        question.pause = max(error.wait, backoff * random.uniform(0.5, 1.0))
        question.waited += question.pause
        if question.waited > self.max_wait:
            why = f"another wait of {question.pause:.0f} s goes over max_wait, {self.max_wait:g} s"
        if error.status == 429:
            question.limited += 1
            self._open_at = max(self._open_at, time.monotonic() + error.wait)
        else:
            most = self.max_retries if self._reached else min(_FIRST_RETRIES, self.max_retries)
            if question.retries >= most:
                why = f"given up after {question.retries} retries"
            question.retries += 1
        if why:
            error.args = (f"{error}; {why}",)
        return not why

    def _adapt(self, refusal: str, question: _Question) -> bool:
        """Change the form of requests if that is what a refusal asks for; remembered for all."""
        form, text = self._form, refusal.lower()
        sent = self.temperature is not None and "temperature" not in self.extra
        unsupported = _UNSUPPORTED.search(text)
        if form.limit_field == "max_tokens" and unsupported and "max_completion_tokens" in text:
            self._form = form._replace(limit_field="max_completion_tokens")
        elif form.with_temperature and sent and unsupported and "temperature" in text:
            self._form = form._replace(with_temperature=False)
            warnings.warn(
                f"{self._address} refuses temperature {self.temperature:g}, so it is asked again "
                f"without, and samples as it likes: {refusal}"
            )
        elif not form.side_by_side and len(question.images) > 1 and _ONE_IMAGE.search(text):
            self._form = form._replace(side_by_side=True)
        return form != self._form

    async def _call(self, question: _Question) -> ChatReply:
        """Make one request within the budget."""
        form = question.form = self._form
        # encoding takes a while: the loop serves other questions meanwhile
        pictures = await asyncio.to_thread(
            message_content, question.images, self.image_format, form.side_by_side
        )
        while (held := self._open_at - time.monotonic()) > 0:
            await asyncio.sleep(held)
        # calls in flight hold the most that they can use
        for spent, most, unit in (
            (self.calls, self.max_calls, "calls"),
            (self.tokens, self.max_tokens_total, "tokens"),
        ):
            if most is not None and spent >= most:
                raise BudgetSpentError(f"{spent} of {most} {unit} of the budget are spent")
        self.calls += 1
        question.calls += 1
        used, reserved = 0, question.tokens + self.max_reply_tokens
        self.tokens += reserved  # while the call is in flight
        try:
            # before and after JSON is read, where escapes may spell the key
            reply = parse_completion(self._hide(await self._request(question, form, pictures)))
            used = reply.prompt_tokens + reply.reply_tokens
            used = used or question.tokens + len(reply.text) // _TOKEN_CHARACTERS
            self._reached = True
            return replace(reply, text=self._hide(reply.text))
        except _CallError as error:
            self._reached |= error.reached
            # the server may have counted the tokens of a reply that was lost
            used = question.tokens if error.reached and not error.status else 0
            raise
        finally:
            self.tokens += used - reserved

    async def _request(self, question: _Question, form: _Form, pictures: Sequence[Any]) -> str:
        """Send a request; the body of the reply."""
        import openai

        first, *rest = question.turns
        content = [*pictures, _text(first.text)]
        messages: list[Any] = [{"role": first.role, "content": content}]
        messages += [{"role": turn.role, "content": turn.text} for turn in rest]
        body = {form.limit_field: self.max_reply_tokens, **self.extra}
        if self.temperature is not None and form.with_temperature:
            body.setdefault("temperature", self.temperature)
        create = self._client.chat.completions.with_raw_response.create
        try:
            # for the whole attempt: the client's own timeouts begin anew with each byte
            async with asyncio.timeout(self.timeout):
                response = await create(model=self.model, messages=messages, extra_body=body)
            return response.content.decode("utf-8", "replace")
        except TimeoutError:
            raise _CallError(f"no whole reply in {self.timeout:g} s") from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, _CallError):
                raise cause from None
            # ConnectError and ConnectTimeout, of whichever HTTP package the client builds on
            reached = not type(cause).__name__.startswith("Connect")
            text = one_line(f"{type(cause).__name__}: {cause}", self._hide)
            raise _CallError(text, reached=reached) from None

    def _status_error(self, error: Any) -> Exception:
        """The meaning of a status of 300 or more: an error of this call, or of all calls."""
        status, text = error.status_code, one_line(error.body, self._hide)
        if status not in _FATAL and status >= 400 and error.code != "insufficient_quota":
            wait = retry_after(error.response.headers)
            return _CallError(f"status {status}: {text}", status, wait)
        key = "no key (api_key_env names a variable)"
        key = f"the key in {self._variable}" if self._variable else key
        why = _FATAL.get(status, "moved" if status < 400 else "the quota is spent")
        return AnnotatorUnavailableError(
            f"{self._address}: status {status}, {why.format(key=key)}: {text}"
        )


@dataclass(eq=False)
class TransformersChat(ChatModel):
    """A model of transformers in this process; simultaneous questions are generated in one batch.

    Decoding is greedy. Weights are loaded from safetensors, and no code of a model's repository
    runs. Models that read images and models of text alone are told apart by their configuration.

    Raises:
        AnnotatorUnavailableError: the model cannot be loaded, or has no chat template.
        ValueError: a setting out of range.
    """

    model: str
    device: str = setting("cpu", "cpu, cuda, cuda:1, mps, ...")
    dtype: str = setting("auto", "float32, bfloat16, ...; auto is that of the weights")
    batch_size: int = setting(4, "most questions per batch")
    max_new_tokens: int = setting(256, "most tokens of a reply; a longer reply is cut")
    batch_wait: float = setting(0.02, "seconds that a batch waits for more questions")
    give_up_after: int = setting(32, "number of questions in a row without reply that end the run")
    local_files_only: bool = setting(False, "never ask the hub, as without a network")
    with_scores: bool = setting(False, "give the mean log-probability of each reply")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch_size=1, max_new_tokens=1, batch_wait=0, give_up_after=1)
        self.name = f"transformers:{self.model}"
        # the next batch is asked while a batch is generated
        self.max_in_flight = 2 * self.batch_size
        self._network, self._processor = load_transformers(
            None, self.model, self.device, self.dtype, self.local_files_only
        )
        if not getattr(self._processor, "chat_template", None):
            raise AnnotatorUnavailableError(f"{self.model}: its processor has no chat template")
        # the processor of a model of text alone is its tokenizer
        self._sees = hasattr(self._processor, "tokenizer")
        self._tokenizer = self._processor.tokenizer if self._sees else self._processor
        self._tokenizer.padding_side = "left"
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._waiting: deque[tuple[list[dict[str, Any]], asyncio.Future]] = deque()
        self._worker: asyncio.Task | None = None

    @property
    def answer_settings(self) -> dict[str, Any]:
        """See `ChatModel`."""
        return {"dtype": self.dtype, "max_new_tokens": self.max_new_tokens}

    async def _reply(self, question: _Question) -> ChatReply:
        if question.images and not self._sees:
            raise AnnotatorUnavailableError(f"{self.name} reads no images: choose another model")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((self._conversation(question.turns, question.images), done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        result = await done
        if isinstance(result, ChatReply):
            self._without_reply.clear()
            return result
        message = f"{self.name}: {type(result).__name__}: {result}"
        self._count_lost(message)
        raise NoAnswerError(message) from result

    def _conversation(
        self, turns: Sequence[Turn], images: Sequence[np.ndarray]
    ) -> list[dict[str, Any]]:
        """Turns as chat templates take them: parts for models that see, else plain text."""
        if not self._sees:
            return [{"role": turn.role, "content": turn.text} for turn in turns]
        shown = _named_images(
            images, lambda image: {"type": "image", "image": Image.fromarray(image)}
        )
        talk = [{"role": turn.role, "content": [_text(turn.text)]} for turn in turns]
        talk[0]["content"] = shown + talk[0]["content"]
        return talk

    async def _work(self) -> None:
        """Generate for all questions that wait, a batch at a time."""
        try:
            while self._waiting:
                if len(self._waiting) < self.batch_size:
                    await asyncio.sleep(self.batch_wait)
                count = min(self.batch_size, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                results = await asyncio.to_thread(self._generate, [talk for talk, _ in batch])
                for (_, done), result in zip(batch, results, strict=True):
                    if not done.done():  # its caller may have been interrupted
                        done.set_result(result)
        finally:
            self._worker = None

    def _generate(self, talks: Sequence[Any]) -> list[ChatReply | BaseException]:
        """Generate a batch; if it fails, its halves, so that a bad question fails alone."""
        padding = {"padding": True}
        options = {"processor_kwargs": padding} if self._sees else padding
        limit, scores = self.max_new_tokens, self.with_scores
        try:
            inputs = self._processor.apply_chat_template(
                list(talks),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **options,
            )
            return generate_greedily(self._network, inputs, self._tokenizer, limit, scores)
        except BaseException as error:  # every question gets a result, for callers wait for them
            failure = error.with_traceback(None)  # its frames hold the memory of the batch
        if len(talks) == 1:
            return [failure]
        half = len(talks) // 2
        return self._generate(talks[:half]) + self._generate(talks[half:])


def make_chat(
    kind: str,
    model: str | None,
    base_url: str | None = None,
    device: str | None = "cpu",
    api_key_env: str | None = None,
    **settings: Any,
) -> ChatModel:
    """A chat model by name, for commands and notebooks.

    Args:
        kind: "openai" (any OpenAI-compatible server) or "transformers" (in this process).
        model: its name at the server, hub id or folder.
        base_url: address of the server; None is OpenAI's.
        device: where "transformers" runs; None is CUDA if there is one.
        api_key_env: environment variable that holds the server's key; None is OPENAI_API_KEY at
            OpenAI, and no key at other servers.
        settings: of `OpenAIChat` or `TransformersChat`; `max_reply_tokens` is for both.

    Raises:
        ValueError: no such kind, device or key, or options that do not go together.
        ImportError: "openai" without the extra of that name.
        AnnotatorUnavailableError: the model cannot be loaded.
    """
    if kind not in ("openai", "transformers"):
        raise ValueError(f"a model is of kind openai or transformers, not {kind!r}")
    if not model:
        raise ValueError(f"the kind {kind} needs a --model")
    if kind == "openai":
        return OpenAIChat(model, base_url, api_key_env, **settings)
    if base_url or api_key_env:
        raise ValueError(
            "a transformers model runs here: --base-url and --api-key-env go with openai"
        )
    if "max_reply_tokens" in settings:
        settings["max_new_tokens"] = settings.pop("max_reply_tokens")
    if foreign := sorted(settings.keys() - TransformersChat.__dataclass_fields__.keys()):
        raise ValueError(f"{foreign[0]} is for openai: a transformers model runs here, greedily")
    return TransformersChat(model, device=chosen_device(device), **settings)


def with_chat_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options to a command, which takes those that were given as a dictionary `chat`.

    Args:
        without: names that the command has options of its own for.
    """
    names = {"temperature", "max_reply_tokens", "sampling_seed", "timeout", "extra"}
    return options_of(OpenAIChat, *names - {*without}, into="chat", only_given=True)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float:
    """Seconds that a server asks to wait: RFC 9110, 10.2.3, as seconds or as a date.

    A date is read against the server's own clock if it sends that; 0 if nothing is asked.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", value):
        return float(value)
    clock = headers.get("date") or formatdate(now)
    try:
        until, here = (parsedate_to_datetime(text).timestamp() for text in (value, clock))
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, until - here)


def message_content(
    images: Sequence[np.ndarray], image_format: str, side_by_side: bool = False
) -> list[dict[str, Any]]:
    """Images as parts of a message: data URLs, named as the prompts name them.

    Args:
        images: (H, W, 3) uint8 each.
        image_format: "jpeg" or "png".
        side_by_side: all in one picture, for servers that take one image per prompt.
    """

    def part(image: np.ndarray) -> dict[str, Any]:
        file = io.BytesIO()
        options = {"quality": 95, "subsampling": 0} if image_format == "jpeg" else {}
        Image.fromarray(image).save(file, image_format, **options)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return {
            "type": "image_url",
            "image_url": {"url": f"data:image/{image_format};base64,{data}"},
        }

    if not side_by_side or len(images) < 2:
        return _named_images(images, part)
    names = " ".join(f"Image-{number}:" for number in range(1, len(images) + 1))
    height = max(image.shape[0] for image in images)
    margins = [((0, height - image.shape[0]), (0, _VIEW_GAP), (0, 0)) for image in images]
    padded = [np.pad(i, m, constant_values=255) for i, m in zip(images, margins, strict=True)]
    label = _text(f"{names} side by side in one picture, from left to right")
    return [label, part(np.concatenate(padded, axis=1))]


def _named_images(
    images: Sequence[np.ndarray], part: Callable[[np.ndarray], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Images as parts of a message, named as the prompts name them; a single one has no name."""
    content = []
    for number, image in enumerate(images, start=1):
        content += [_text(f"Image-{number}:")] if len(images) > 1 else []
        content.append(part(image))
    return content


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def parse_completion(body: str) -> ChatReply:
    """The first choice of a chat completion.

    Raises:
        _CallError: the body is no chat completion.
    """
    try:
        data = json.loads(body)
        choice, usage = data["choices"][0], data.get("usage") or {}
        message, reason = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        if not isinstance(content, str | None):
            raise TypeError
        counts = [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _CallError(f"not a chat completion: {one_line(body)}") from None
    tokens = [n if isinstance(n, int) and 0 < n < 1 << 31 else 0 for n in counts]
    if refusal:
        return ChatReply(content or str(refusal), *tokens, problem="is a refusal")
    return ChatReply(content or "", *tokens, problem=_PROBLEMS.get(str(reason)))


def one_line(body: Any, hide: Callable[[str], str] = str) -> str:
    """An error of a server in at most 300 printable characters, after `hide` has seen it."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    text = "".join(c if c.isprintable() else " " for c in hide(str(body)))
    return " ".join(text.split())[:300]


def server_key(url: str, variable: str | None) -> tuple[str | None, str | None]:
    """The environment variable that holds a server's key, and the key; None for most servers.

    OpenAI's key is sent to another server only if it is asked for by name.

    Args:
        url: address of the server.
        variable: of the environment; None for the server's usual one.

    Raises:
        ValueError: the address is none, or the variable is not set, or its value cannot be a key.
            The key is not shown.
    """
    if set(url) & set("@?#"):
        raise ValueError("base_url holds more than an address; a key goes into the environment")
    if not re.match(r"https?://[^/]", url):
        raise ValueError(f"base_url starts with http:// or https:// and a host, not {url!r}")
    if variable is None:
        if not _is_openai(url):
            return None, None
        variable = "OPENAI_API_KEY"
    key = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(f"{variable} holds white space or other characters that no key has")
    if not key:
        raise ValueError(f"set the environment variable {variable} to your key")
    return variable, key


def _is_openai(url: str) -> bool:
    server, openai = urlsplit(url), urlsplit(OPENAI_URL)
    return (server.scheme, server.netloc) == (openai.scheme, openai.netloc)


def _hider(key: str | None) -> Callable[[str], str]:
    """A function that removes the key from a text; a closure, so that no attribute shows it."""
    if key is None or len(key) < 8:  # too short to be a secret, and would be found in any text
        return lambda text: text
    return lambda text: text.replace(key, "[key]")


def _client(url: str, key: str | None, timeout: float) -> Any:
    """The official client; retries, redirects and the size of replies are under our control."""
    try:
        import openai
    except ImportError:
        raise ImportError(
            'an OpenAI-compatible server needs the openai package: pip install "ureca-lib[openai]"'
        ) from None

    class BoundedClient(openai.DefaultAsyncHttpxClient):
        """Reads bodies up to a size, of errors too, which the official client reads whole."""

        async def send(self, request: Any, **options: Any) -> Any:
            """Send a request with our headers alone, and read its reply."""
            if not _is_openai(url):
                for name in [name for name in request.headers if not name.startswith(_HEADERS)]:
                    del request.headers[name]
            # few bytes may unpack to gigabytes
            request.headers["accept-encoding"] = "identity"
            response = await super().send(request, **(options | {"stream": True}))
            try:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise _CallError("the reply is compressed, which was not asked for")
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_BODY:
                        raise _CallError(f"the reply has more than {_MAX_BODY} bytes")
            finally:
                await response.aclose()
            status, headers = response.status_code, response.headers
            return type(response)(status, headers=headers, content=bytes(body), request=request)

    # the connection fails before the attempt times out, so that the two can be told apart
    limits = openai.Timeout(timeout, connect=0.9 * timeout)
    http = BoundedClient(follow_redirects=False, timeout=limits)  # nor photos nor key elsewhere
    return openai.AsyncOpenAI(
        api_key=key or "none", base_url=url, timeout=limits, max_retries=0, http_client=http
    )


def generate_greedily(
    network: Any, inputs: Any, tokenizer: Any, max_new_tokens: int, with_scores: bool = False
) -> list[ChatReply]:
    """Greedy replies of a model of transformers.

    Args:
        inputs: of B prompts, padded on the left.
        with_scores: give the mean log-probability of each reply, its end token included.

    Returns:
        B replies; a reply that does not end by itself has a problem.
    """
    import torch

    eos, pad = network.generation_config.eos_token_id, tokenizer.pad_token_id
    inputs = dict(inputs.to(network.device))
    # pixels in the precision of the weights; ids stay whole numbers
    inputs |= {n: v.to(network.dtype) for n, v in inputs.items() if v.is_floating_point()}
    with torch.inference_mode():
        out = network.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=tokenizer.eos_token_id if pad is None else pad,
            return_dict_in_generate=True,
            output_scores=with_scores,
        )
        new, logs = out.sequences.shape[1] - inputs["input_ids"].shape[1], None
        if with_scores:
            logs = network.compute_transition_scores(out.sequences, out.scores, None, True)
            new = logs.shape[1]  # some classes leave the prompt out of what they return
    ends = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
    prompts, replies = inputs["attention_mask"].sum(1).tolist(), []
    # (B, prompt + reply) -> (B, reply)
    for row, ids in enumerate(out.sequences[:, -new:].tolist()):
        stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        score = (
            None if logs is None else float(np.mean(logs[row, : stop + 1].float().cpu().numpy()))
        )
        text = tokenizer.decode(ids[:stop], skip_special_tokens=True)
        problem = _CUT if stop == len(ids) else None
        replies.append(ChatReply(text, prompts[row], stop, problem=problem, score=score))
    return replies


def generate_in_batches(
    model: Any, inputs: Callable[[Sequence[Any]], Any], items: Sequence[Any]
) -> Iterator[ChatReply]:
    """Greedy replies of a network.

    Args:
        model: with `network`, `processor`, `batch_size`, and the limit of tokens in `settings`.
        inputs: makes the network's inputs of some items.
        items: one per reply.
    """
    limit = model.settings["max_new_tokens"]
    for start in range(0, len(items), model.batch_size):
        batch, tokens = inputs(items[start : start + model.batch_size]), model.processor.tokenizer
        yield from generate_greedily(model.network, batch, tokens, limit, with_scores=True)


def load_transformers(
    kind: Any, model: str, device: str, dtype: str, local_files_only: bool = False
) -> tuple[Any, Any]:
    """A model of a class of transformers, on its device, and its processor.

    Args:
        kind: the class; None chooses by the configuration whether the model reads images. The
            processor of a model of text alone is its tokenizer.

    Raises:
        AnnotatorUnavailableError: the files, the hub or the device fail.
    """
    import transformers

    options = {"local_files_only": local_files_only, "trust_remote_code": False}
    processor_kind = transformers.AutoProcessor
    try:
        if kind is None:
            config = transformers.AutoConfig.from_pretrained(model, **options)
            kind = transformers.AutoModelForImageTextToText
            if type(config) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
                kind = transformers.AutoModelForCausalLM
                processor_kind = transformers.AutoTokenizer
        processor = processor_kind.from_pretrained(model, **options)
        network = kind.from_pretrained(model, dtype=dtype, use_safetensors=True, **options)
        return network.to(device).eval(), processor
    except Exception as error:
        message = f"{model} cannot be loaded on {device}: {type(error).__name__}: {error}"
        raise AnnotatorUnavailableError(message) from error
