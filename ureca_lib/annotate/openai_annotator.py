"""An annotator behind any server that speaks OpenAI's chat completions.

Such as vLLM, LMDeploy or SGLang serving InternVL2.5, or OpenAI itself. The official client builds
and sends the requests; retries are ours, because its own neither wait as long as a server asks nor
end a reply that comes in drips.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from ureca_lib.annotate.budget import Budget
from ureca_lib.annotate.chat_completions import (
    FaultyReplyError,
    message_content,
    one_line,
    parse_completion,
    read_body,
    retry_after,
)
from ureca_lib.annotate.lost_questions import LostQuestions
from ureca_lib.annotate.pace import Pace
from ureca_lib.annotate.protocol import AnnotatorUnavailableError, Reply, Request
from ureca_lib.annotate.replies import Draft, NoAnswerError, Turn, answer_checked
from ureca_lib.server_keys import OPENAI_URL, server_key

_MAX_BACKOFF = 60.0  # seconds
_FIRST_RETRIES = 2  # of a question while no connection was ever made: the address may be wrong
_TOKEN_PIXELS = 28 * 28  # of an image, as InternVL2.5 and Qwen2-VL count
_TOKEN_CHARACTERS = 4
_FATAL = {
    401: "{key} is not accepted",
    402: "the account cannot pay",
    403: "{key} may not use this model",
    404: "no such model or address",
}
_BUSY = (408, 409, 425, 429)
_OWN_FIELDS = ("messages", "model", "stream", "n")


@dataclass
class _Question:
    """What one question has used up of its retries."""

    content: list[dict[str, Any]]
    tokens: int  # of the prompt and the views, estimated
    image: Hashable = None  # stands for the image, where it is about one
    retries: int = 0
    waited: float = 0.0
    taken: float = 0.0  # when its latest turn was taken
    limit: FaultyReplyError | None = None  # the latest refusal for asking too fast


@dataclass(frozen=True, eq=False)
class OpenAIAnnotator:
    """Asks a model behind an OpenAI-compatible server; `answer` may be called from many threads.

    The key is read from the environment when the annotator is made, is sent to `base_url` and
    nowhere else, and stands in no log, error, record or `repr`. A server of one's own gets no key
    unless `api_key_env` names one: OpenAI's is none of its business. A question that the server
    refuses, or that fails after all retries, is a failed `Reply`.

    Raises:
        ImportError: the `openai` package is missing.
        ValueError: a setting out of range, a bad address, or no key in the environment where one
            is named or the server is OpenAI's own.
    """

    model: str = field(metadata={"help": "name that the server knows the model by"})
    base_url: str | None = field(
        default=None, metadata={"help": "address up to /v1; None is OpenAI's own"}
    )
    api_key_env: str | None = field(
        default=None,
        metadata={
            "help": "environment variable that holds the key; None: OPENAI_API_KEY at OpenAI, no "
            "key at other servers"
        },
    )
    max_in_flight: int = field(default=16, metadata={"help": "most calls at a time"})
    timeout: float = field(
        default=120.0, metadata={"help": "seconds that a call may take, and may stay silent"}
    )
    max_retries: int = field(
        default=6,
        metadata={
            "help": "of a question, on 5xx, timeouts, lost or broken replies; 2 while no "
            "connection was ever made. On 429, max_wait alone counts"
        },
    )
    backoff: float = field(
        default=1.0, metadata={"help": "seconds before the first retry, then doubled, with jitter"}
    )
    max_wait: float = field(
        default=600.0,
        metadata={
            "help": "most seconds that a question waits in all, those behind others not counted"
        },
    )
    give_up_after: int = field(
        default=32,
        metadata={
            "help": "questions lost in a row, or refused of several images, at which the run ends"
        },
    )
    max_corrections: int = field(
        default=2, metadata={"help": "most times that a bad reply is sent back"}
    )
    max_calls: int | None = field(
        default=None, metadata={"help": "budget of calls, retries included; None: no limit"}
    )
    max_tokens_total: int | None = field(
        default=None, metadata={"help": "budget of tokens, prompts included; None: no limit"}
    )
    temperature: float | None = field(
        default=0.0, metadata={"help": "None leaves it to the server"}
    )
    max_reply_tokens: int = field(default=512, metadata={"help": "a longer reply is cut, and bad"})
    token_field: Literal["max_tokens", "max_completion_tokens"] = field(
        default="max_tokens", metadata={"help": "what the server calls that limit"}
    )
    image_format: Literal["jpeg", "png"] = field(
        default="jpeg", metadata={"help": "jpeg at quality 95 with full colors, or png"}
    )
    extra: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "more fields of the request, such as seed"}
    )
    name: str = field(init=False, repr=False)
    _variable: str | None = field(init=False, repr=False)
    _hide: Callable[[str], str] = field(init=False, repr=False)
    _client: Any = field(init=False, repr=False)
    _budget: Budget = field(init=False, repr=False)
    _lost: LostQuestions = field(init=False, repr=False)
    _pace: Pace = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        variable, key = server_key(self.base_url, self.api_key_env)
        put = object.__setattr__
        put(self, "name", f"openai:{self.model}")
        put(self, "_variable", variable)
        put(self, "_hide", _hider(key))
        put(self, "_client", _client(self.base_url or OPENAI_URL, key, self.timeout))
        put(self, "_budget", Budget(self.max_calls, self.max_tokens_total))
        put(self, "_lost", LostQuestions(self.give_up_after))
        put(self, "_pace", Pace(self.backoff, _MAX_BACKOFF))

    @property
    def answer_settings(self) -> dict[str, Any]:
        """What decides an answer besides the model; the rest only how it is got."""
        names = ("temperature", "max_reply_tokens", "image_format")
        return {name: getattr(self, name) for name in names} | {"extra": dict(self.extra)}

    @property
    def calls(self) -> int:
        """Requests made so far, retries included."""
        return self._budget.calls

    @property
    def tokens(self) -> int:
        """Tokens used so far, estimated where the server does not say."""
        return self._budget.tokens

    def answer(self, request: Request) -> Reply:
        """Answer one question.

        Returns:
            The checked reply, or a failed one that says why.

        Raises:
            BudgetSpentError: the next call may go over the budget.
            AnnotatorUnavailableError: 401, 402, 403 or 404, a spent quota, a server that cannot be
                reached, or `give_up_after` questions in a row that were lost, or refused of several
                images.
        """
        content = message_content(request, self.image_format)
        pixels = sum(view.shape[0] * view.shape[1] for view in request.views)
        tokens = pixels // _TOKEN_PIXELS + len(request.prompt) // _TOKEN_CHARACTERS
        image = request.image
        shown = (image.path, image.image_id, image.file_name)
        question = _Question(content, tokens, id(image) if shown == (None,) * 3 else shown)
        return answer_checked(
            request.stage, lambda turns: self._say(question, turns), self.max_corrections
        )

    def _say(self, question: _Question, turns: Sequence[Turn]) -> Draft:
        """One turn, with its retries."""
        messages = [{"role": "user", "content": question.content}]
        messages += [{"role": turn.role, "content": turn.text} for turn in turns]
        tokens = question.tokens + sum(len(turn.text) for turn in turns) // _TOKEN_CHARACTERS
        attempts = 0
        while True:
            self._take_turn(question, attempts)
            attempts += 1
            try:
                draft = self._call(messages, tokens)
            except FaultyReplyError as fault:
                self._wait(question, fault, attempts)
            except NoAnswerError as error:
                self._budget.reached = True
                self._lost.add(str(error), question.image)
                raise NoAnswerError(str(error), attempts) from None
            else:
                self._budget.reached = True
                self._lost.end()
                self._pace.ease()
                return replace(draft, attempts=attempts)

    def _take_turn(self, question: _Question, attempts: int) -> None:
        """Wait until all threads together ask no faster than the server allows."""
        left = self.max_wait - question.waited
        turn = self._pace.turn(left)
        if turn.held > left:
            why = question.limit or "the server limits the rate"
            self._lose(f"{why}; {self._too_long(turn.held)}", attempts)
        question.taken = turn.taken
        question.waited += turn.held
        time.sleep(turn.wait)

    def _wait(self, question: _Question, fault: FaultyReplyError, attempts: int) -> None:
        """Wait before a retry; an error where there is none left, or where it would be too long."""
        self._budget.reached = self._budget.reached or fault.reached
        if fault.limited:
            self._pace.slow(question.taken, fault.wait)
            question.limit = fault
            return
        retries = self.max_retries
        if not self._budget.reached:
            retries = min(retries, _FIRST_RETRIES)
        backoff = min(_MAX_BACKOFF, self.backoff * 2.0 ** min(question.retries, 60))
        seconds = max(fault.wait, backoff * random.uniform(0.5, 1.0))
        if question.retries < retries and question.waited + seconds <= self.max_wait:
            question.retries += 1
            question.waited += seconds
            time.sleep(seconds)
            return
        why = f"given up after {question.retries} retries"
        if question.retries < retries:
            why = self._too_long(seconds)
        if not fault.reached:
            raise AnnotatorUnavailableError(f"{self._address}: {fault}; {why}") from None
        self._lose(f"{fault}; {why}", attempts)

    def _too_long(self, seconds: float) -> str:
        return f"another wait of {seconds:.0f} s goes over max_wait, {self.max_wait:g} s"

    def _lose(self, why: str, attempts: int) -> NoReturn:
        message = f"{self._address}: {why}"
        self._lost.add(message)
        raise NoAnswerError(message, attempts) from None

    def _call(self, messages: list[dict[str, Any]], tokens: int) -> Draft:
        """One request, within the budget."""
        reserved = tokens + self.max_reply_tokens
        self._budget.reserve(reserved)
        used = 0
        try:
            draft = parse_completion(self._request(messages))
            used = draft.prompt_tokens + draft.reply_tokens
            used = used or tokens + len(draft.text) // _TOKEN_CHARACTERS
            return replace(draft, text=self._hide(draft.text))
        except FaultyReplyError as fault:
            used = tokens if fault.processed else 0
            raise
        finally:
            self._budget.settle(reserved, used)

    def _request(self, messages: list[dict[str, Any]]) -> str:
        """Send; the body of the reply."""
        import openai

        body = {self.token_field: self.max_reply_tokens, **self.extra}
        if self.temperature is not None:
            body.setdefault("temperature", self.temperature)
        deadline = time.monotonic() + self.timeout
        create = self._client.chat.completions.with_streaming_response.create
        try:
            with create(model=self.model, messages=messages, extra_body=body) as response:
                return self._hide(read_body(response.iter_bytes(), deadline))
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            reached = not type(cause).__name__.startswith("Connect")
            text = self._hide(f"{type(cause).__name__}: {cause}")
            raise FaultyReplyError(text, processed=reached, reached=reached) from None
        except Exception as error:
            # the client passes on as it is what goes wrong within a body
            if not type(error).__module__.startswith("httpx"):
                raise
            raise FaultyReplyError(f"half a reply: {type(error).__name__}") from None

    def _refusal(self, error: Any) -> Exception:
        """What a status of 400 or more means for the run."""
        status, headers = error.status_code, error.response.headers
        text = one_line(error.body, self._hide)
        quota = error.code == "insufficient_quota"  # a 429 that no wait helps
        if status in _FATAL or status < 400 or quota:
            return self._unavailable(status, text)
        if status in _BUSY or status >= 500:
            wait, limited = retry_after(headers), status == 429
            return FaultyReplyError(f"status {status}: {text}", wait, False, limited=limited)
        return NoAnswerError(f"{self._address}: status {status}: {text}")

    def _unavailable(self, status: int, text: str) -> AnnotatorUnavailableError:
        variable = self._variable
        key = f"the key in {variable}" if variable else "no key (api_key_env names a variable)"
        usual = "moved" if status < 400 else "the quota is spent"
        why = _FATAL.get(status, usual).format(key=key)
        return AnnotatorUnavailableError(f"{self._address}: status {status}, {why}: {text}")

    @property
    def _address(self) -> str:
        return f"{self.base_url or OPENAI_URL} ({self.model})"

    def _check(self) -> None:
        least = {"max_in_flight": 1, "max_retries": 0, "give_up_after": 1, "max_corrections": 0}
        least |= {"max_reply_tokens": 1, "backoff": 0, "max_wait": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"{name} is at least {value}, not {getattr(self, name)}")
        if not self.timeout > 0:
            raise ValueError(f"timeout is above 0 seconds, not {self.timeout}")
        if self.image_format not in ("jpeg", "png"):
            raise ValueError(f"image_format is jpeg or png, not {self.image_format!r}")
        if taken := [name for name in _OWN_FIELDS if name in self.extra]:
            raise ValueError(f"extra may not set {', '.join(taken)}")
        if self.base_url is not None:
            _check_address(self.base_url)


def _hider(key: str | None) -> Callable[[str], str]:
    """What takes the key out of a text; a closure, so that no attribute shows it."""
    if key is None or len(key) < 8:  # too short to be a secret, and would be found in any text
        return lambda text: text
    return lambda text: text.replace(key, "[key]")


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("base_url holds more than an address; a key goes into the environment")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url starts with http:// or https:// and a host, not {url!r}")


def _client(url: str, key: str | None, timeout: float) -> Any:
    try:
        import openai
    except ImportError:
        raise ImportError(
            'an OpenAI-compatible server needs the openai package: pip install "ureca-lib[openai]"'
        ) from None
    # a redirect could carry photos and key elsewhere
    http = openai.DefaultHttpxClient(follow_redirects=False, timeout=timeout)
    return openai.OpenAI(
        api_key=key or "none", base_url=url, timeout=timeout, max_retries=0, http_client=http
    )
