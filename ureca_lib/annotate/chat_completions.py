"""The wire format of OpenAI's chat completions: a request's content, and what comes back."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from PIL import Image

from ureca_lib.annotate.protocol import Request
from ureca_lib.annotate.replies import Draft

_MAX_BODY = 4 << 20  # bytes of a reply; a caption has some hundred
_PROBLEMS = {"length": "was cut off before its end", "content_filter": "was filtered"}


class FaultyReplyError(Exception):
    """A request that may go well if it is made again."""

    def __init__(
        self,
        message: str,
        wait: float = 0.0,
        processed: bool = True,
        reached: bool = True,
        limited: bool = False,
    ):
        super().__init__(message)
        self.wait = wait  # seconds that the server asks for
        self.processed = processed  # the server may have counted the tokens
        self.reached = reached  # there was a connection
        self.limited = limited  # too many requests in too short a time; nothing is wrong with it


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float:
    """Seconds that a server asks to wait: RFC 9110, 10.2.3, as seconds or as a date.

    A date is read against the server's own clock where it sends it; 0 where nothing is asked.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        now = time.time() if now is None else now
    return max(0.0, until - now)


def message_content(request: Request, image_format: str) -> list[dict[str, Any]]:
    """The views as data URLs, named as the prompts name them, and the prompt.

    Args:
        request: its views are (H, W, 3) uint8.
        image_format: "jpeg" or "png".
    """
    content: list[dict[str, Any]] = []
    for number, view in enumerate(request.views, start=1):
        if len(request.views) > 1:
            content.append({"type": "text", "text": f"Image-{number}:"})
        file = io.BytesIO()
        options = {"quality": 95, "subsampling": 0} if image_format == "jpeg" else {}
        Image.fromarray(view).save(file, image_format, **options)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        url = f"data:image/{image_format};base64,{data}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    return [*content, {"type": "text", "text": request.prompt}]


def read_body(chunks: Iterable[bytes], deadline: float) -> str:
    """A body as it comes in.

    Args:
        chunks: of it.
        deadline: on the monotonic clock, in seconds.

    Raises:
        FaultyReplyError: it takes too long, or is too long.
    """
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if time.monotonic() > deadline:
            raise FaultyReplyError(f"the reply was not whole in time: {len(body)} bytes of it")
        if len(body) > _MAX_BODY:
            raise FaultyReplyError(f"the reply has more than {_MAX_BODY} bytes")
    return body.decode("utf-8", "replace")


def parse_completion(body: str) -> Draft:
    """The first choice of a chat completion, whatever it says.

    Raises:
        FaultyReplyError: it is no chat completion.
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
        tokens = [_count(usage.get(f"{kind}_tokens")) for kind in ("prompt", "completion")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise FaultyReplyError(f"not a chat completion: {one_line(body)}") from None
    if refusal:
        return Draft(content or str(refusal), *tokens, problem="is a refusal")
    return Draft(content or "", *tokens, problem=_PROBLEMS.get(str(reason)))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


def one_line(body: Any, hide: Callable[[str], str] = str) -> str:
    """What a server says of an error, in at most 300 characters, after `hide` has seen it."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(hide(str(body)).split())[:300]
