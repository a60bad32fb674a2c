"""A real HTTP server on loopback: chat completions as OpenAI has them, done badly by script."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    at: float  # monotonic seconds
    path: str
    headers: dict[str, str] = field(repr=False)  # names in lower case; one holds the key
    body: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        """The text of each turn; of the first one, only the last part, which is the prompt."""
        contents = [message["content"] for message in self.body["messages"]]
        return [c if isinstance(c, str) else c[-1]["text"] for c in contents]


Act = Callable[[BaseHTTPRequestHandler], None]


def completion(text: str | list | None, **changes: Any) -> dict[str, Any]:
    """The body of a good reply; `changes` go into its choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    choice |= {"finish_reason": "stop"} | changes
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """A whole reply."""
    handler.send_response(status)
    names = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    for name, value in (names | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def say(text: str | list | None, **changes: Any) -> Act:
    """Answer well."""
    return lambda handler: send(handler, 200, json.dumps(completion(text, **changes)).encode())


def raw(body: bytes, status: int = 200, **headers: str) -> Act:
    """Answer with these bytes."""
    return lambda handler: send(handler, status, body, **headers)


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Act:
    """Answer with an error as OpenAI words it."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    return raw(json.dumps(body).encode(), status, **headers)


def late(seconds: float, text: str = "a red mug") -> Act:
    """Be silent first."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        say(text)(handler)

    return act


def together(number: int, seconds: float = 30.0, text: str = "a red mug") -> Act:
    """Answer calls in groups that are here at the same time; for seconds in vain, hang up."""
    here = threading.Barrier(number, timeout=seconds)

    def act(handler: BaseHTTPRequestHandler) -> None:
        here.wait()
        say(text)(handler)

    return act


def half(status: int = 200, text: str = "a red mug") -> Act:
    """Promise a body and hang up in the middle of it."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps(completion(text)).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])

    return act


def drip(pause: float, text: str = "a red mug") -> Act:
    """Send the body byte by byte."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps(completion(text)).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for byte in body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(pause)

    return act


def flood(size: int) -> Act:
    """Send far more than any reply has."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(size >> 16):
            handler.wfile.write(b" " * (1 << 16))

    return act


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""


@dataclass
class FaultyServer:
    """Plays its script, one act a request, then answers well.

    Args:
        script: what to do with the first requests.
        then: what to do with the rest.
    """

    script: list[Act] = field(default_factory=list)
    then: Act = field(default_factory=lambda: say("a red mug"))
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> FaultyServer:
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.body = json.loads(self.rfile.read(length))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    server.seen.append(Seen(time.monotonic(), self.path, headers, body))
                    act = server.script.pop(0) if server.script else server.then
                try:
                    act(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client had enough
                finally:
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        class Listening(ThreadingHTTPServer):
            request_queue_size = 64  # with 5, connections made together wait for seconds

        self._http = Listening(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        # a test does not wait for an act that sleeps on
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What an annotator takes as its base_url."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def gaps(self) -> list[float]:
        """Seconds between requests."""
        times = [seen.at for seen in self.seen]
        return [later - sooner for sooner, later in itertools.pairwise(times)]

    def play(self, acts: Iterable[Act]) -> FaultyServer:
        """Add to the script."""
        self.script.extend(acts)
        return self
