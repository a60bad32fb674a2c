"""Chat models: servers of today, what a server may do to a client, and callers of every kind."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
from collections.abc import Iterator

import nbformat
import numpy as np
import pytest
from faults.server import FaultyServer, error, raw, say
from nbclient import NotebookClient
from PIL import Image
from typer.testing import CliRunner

from ureca_lib.chat import AnnotatorUnavailableError, NoAnswerError, OpenAIChat, Turn, make_chat
from ureca_lib.cli import app

pytest.importorskip("openai", reason="the openai extra is not installed")

LIMIT = error(
    400,
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
    "unsupported_parameter",
)
TEMPERATURE = error(
    400,
    "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) "
    "value is supported.",
    "unsupported_value",
)
ONE_IMAGE = error(400, "At most 1 image(s) may be provided in one prompt.")


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


def chat_of(server: FaultyServer, **settings) -> OpenAIChat:
    return OpenAIChat("tiny", server.url, **({"backoff": 0.01, "timeout": 5.0} | settings))


def scripted(server: FaultyServer, choose) -> None:
    """Let the server answer by what it was sent last."""
    server.then = lambda handler: choose(server.seen[-1].body)(handler)


def test_a_model_of_reasoning_gets_the_fields_that_it_takes(server):
    def choose(body):
        if "max_tokens" in body:
            return LIMIT
        return TEMPERATURE if "temperature" in body else say("a mug")

    scripted(server, choose)
    chat = chat_of(server, max_reply_tokens=33)
    with pytest.warns(UserWarning, match=r"refuses temperature 0.*Only the default") as warned:
        reply = chat.ask("What?")
    assert (reply.text, reply.attempts) == ("a mug", 3)
    last = server.seen[-1].body
    assert last["max_completion_tokens"] == 33
    assert not {"temperature", "max_tokens"} & last.keys()
    # remembered: the next question is asked once
    assert chat.ask("And what?").attempts == 1 and len(warned) == 1
    assert chat.calls == 4  # each attempt counts against the budget
    # what stored answers are keyed by does not depend on what the server made of it
    assert chat.answer_settings["temperature"] == 0.0


def test_questions_that_are_refused_together_all_find_the_new_form(server):
    scripted(server, lambda body: LIMIT if "max_tokens" in body else say("a mug"))
    chat = chat_of(server, max_in_flight=8)

    async def many():
        asked = [chat.complete([Turn("user", "What?")]) for _ in range(8)]
        return await asyncio.gather(*asked)

    assert {reply.text for reply in asyncio.run(many())} == {"a mug"}


def test_a_temperature_that_is_refused_for_good_fails_its_question(server):
    server.then = TEMPERATURE
    chat = chat_of(server, extra={"temperature": 0.3})
    with pytest.raises(NoAnswerError, match="status 400: Unsupported value: 'temperature'"):
        chat.ask("What?")
    assert len(server.seen) == 1  # a field of `extra` is the user's own


def test_a_refusal_for_another_reason_changes_nothing(server):
    server.play([error(400, "content filter: the temperature of the soup"), say("a mug")])
    chat = chat_of(server)
    with pytest.raises(NoAnswerError, match="content filter"):
        chat.ask("What?")
    assert chat.ask("What?").text == "a mug"
    assert {"temperature", "max_tokens"} <= server.seen[-1].body.keys()


def pictures(seen) -> list[np.ndarray]:
    content = seen.body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    files = [io.BytesIO(base64.b64decode(url.split(",")[1])) for url in urls]
    return [np.asarray(Image.open(file)) for file in files]


def test_a_server_that_takes_one_image_gets_the_views_side_by_side(server):
    def choose(body):
        types = [part["type"] for part in body["messages"][0]["content"]]
        return ONE_IMAGE if types.count("image_url") > 1 else say("a mug")

    scripted(server, choose)
    generator = np.random.default_rng(0)
    views = [generator.integers(0, 255, (h, w, 3), np.uint8) for h, w in ((20, 30), (40, 10))]
    chat = chat_of(server, image_format="png")
    assert chat.ask("Compare them.", views).attempts == 2
    (both,) = pictures(server.seen[-1])
    assert both.shape[0] == 40
    assert np.array_equal(both[:20, :30], views[0]) and (both[20:, :30] == 255).all()
    assert (both == 255).all((0, 2)).any()  # a gap between the views
    start = 30 + int((both[:, 30:] != 255).any((0, 2)).argmax())
    assert np.array_equal(both[:, start : start + 10], views[1])
    name, *_, prompt = server.seen[-1].body["messages"][0]["content"]
    assert (
        "Image-1" in name["text"] and "Image-2" in name["text"] and "left to right" in name["text"]
    )
    assert prompt["text"] == "Compare them."
    assert chat.ask("Compare them.", views).attempts == 1
    assert chat.ask("What?", views[:1]).text == "a mug"
    assert np.array_equal(pictures(server.seen[-1])[0], views[0])


def test_options_of_a_request_and_the_settings_that_stored_answers_hash(server):
    plain = chat_of(server)
    assert plain.answer_settings == {
        "temperature": 0.0,
        "max_reply_tokens": 512,
        "image_format": "jpeg",
        "extra": {},
    }
    chat = chat_of(server, temperature=0.5, sampling_seed=7, extra={"top_k": 3})
    chat.ask("What?")
    body = server.seen[-1].body
    assert (body["temperature"], body["seed"], body["top_k"]) == (0.5, 7, 3)
    assert chat.answer_settings["extra"] == {"top_k": 3, "seed": 7}


@pytest.mark.parametrize("kind", ["status drips", "headers drip"])
def test_an_error_that_drips_ends_with_its_attempt(server, kind):
    def act(handler):
        if kind == "status drips":
            handler.send_response(500)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.play([act])
    start = time.monotonic()
    assert chat_of(server, timeout=0.5).ask("What?").attempts == 2
    assert time.monotonic() - start < 5


def test_an_error_without_end_is_left_before_it_fills_the_memory(server):
    def act(handler):
        handler.send_response(500)
        handler.end_headers()
        for _ in range(1 << 10):
            handler.wfile.write(b" " * (1 << 16))

    server.play([act])
    with pytest.raises(NoAnswerError, match="more than 4194304 bytes"):
        chat_of(server, max_retries=0).ask("What?")


def test_a_compressed_reply_is_not_unpacked(server):
    server.play([raw(b"x" * 100, 500, Content_Encoding="gzip")])
    with pytest.raises(NoAnswerError, match="compressed"):
        chat_of(server, max_retries=0).ask("What?")
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_what_the_environment_holds_for_openai_goes_to_no_other_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private-123")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-private-456")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: private-789")
    chat_of(server).ask("What?")
    assert "private" not in json.dumps(server.seen[-1].headers)


def test_an_error_of_a_server_cannot_write_to_the_terminal(server):
    server.play([error(400, "no \x1b[31m\u202ered\u0007")])
    with pytest.raises(NoAnswerError) as caught:
        chat_of(server).ask("What?")
    assert str(caught.value).isprintable() and "red" in str(caught.value)


@pytest.mark.parametrize("url", ["http://api.openai.com/v1", "https://api.openai.com:8443/v1"])
def test_openais_key_needs_openais_own_address(url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-marker-7f3a9c51d2e8")
    assert OpenAIChat("m", url)._client.api_key == "none"


def test_an_address_with_a_key_in_it_is_not_shown():
    for url in ("user:sk-marker@host/v1", "sk-marker@host", "http://host/v1?key=sk-marker"):
        with pytest.raises(ValueError, match="base_url holds more than an address") as caught:
            OpenAIChat("m", url)
        assert "marker" not in str(caught.value)


def test_gaps_after_a_rate_limit_close_again(server):
    server.play([error(429, "too fast")])
    chat = chat_of(server, backoff=0.2)
    assert chat.ask("What?").attempts == 2
    start = time.monotonic()
    for _ in range(30):
        chat.ask("What?")
    # with gaps of 0.2 s all the way it would be 6 s
    assert time.monotonic() - start < 4


def test_one_model_is_asked_from_threads_and_from_any_loop(server):
    chat = chat_of(server)
    assert chat.ask("What?").text == "a red mug"
    for _ in range(2):  # each asyncio.run has a loop of its own
        reply = asyncio.run(chat.complete([Turn("user", "What?")]))
        assert reply.text == "a red mug"

    async def in_a_loop():
        return chat.ask("What?").text

    assert asyncio.run(in_a_loop()) == "a red mug"


CELLS = (
    "from ureca_lib.chat import OpenAIChat, Turn\n"
    "chat = OpenAIChat('tiny', {url!r}, 'LAB_KEY')\n"
    "chat.ask('What?').text",
    "(await chat.complete([Turn('user', 'What?')])).text",
    "chat.ask('What?').text + repr(chat)",
)


def test_a_notebook_asks_in_its_cells(server, monkeypatch):
    key = "lab-key-marker-1234"
    monkeypatch.setenv("LAB_KEY", key)
    cells = [nbformat.v4.new_code_cell(source.format(url=server.url)) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    texts = [cell.outputs[0]["data"]["text/plain"] for cell in notebook.cells]
    assert len(server.seen) == 3
    assert all("a red mug" in text for text in texts)
    assert key not in nbformat.writes(notebook)


def test_commands_pass_their_options_on(server, tmp_path):
    path = tmp_path / "p.jsonl"
    row = {"id": "a/1", "caption": "a red mug", "references": ["a red cup"]}
    path.write_text(json.dumps(row) + "\n")
    command = ["clair", str(path), "--judge", "openai", "--model", "m", "--base-url", server.url]
    command += ["--temperature", "0.7", "--sampling-seed", "5", "--extra", '{"top_k": 2}']
    command += ["--max-reply-tokens", "77", "--timeout", "9", "--no-progress", "--seed", "3"]
    server.then = say('{"score": 80}')
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    body = server.seen[-1].body
    assert {n: body[n] for n in ("temperature", "seed", "top_k", "max_tokens")} == {
        "temperature": 0.7,
        "seed": 5,
        "top_k": 2,
        "max_tokens": 77,
    }
    for wrong in ("[1]", "{"):
        refused = CliRunner().invoke(app, [*command, "--extra", wrong])
        assert refused.exit_code == 2 and "extra" in refused.output


@pytest.mark.parametrize("command", ["annotate", "clair", "predict"])
def test_commands_show_the_options_of_a_model(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    for option in ("temperature", "sampling-seed", "timeout", "extra"):
        assert f"--{option}" in plain
    assert "default: 120" in plain


def test_kinds_that_do_not_go_together_are_named():
    for given, reason in (
        (("parrot", "m"), "openai or transformers, not 'parrot'"),
        (("openai", None), "needs a --model"),
        (("transformers", "m", "http://h/v1"), "--base-url"),
    ):
        with pytest.raises(ValueError, match=reason):
            make_chat(*given)
    with pytest.raises(ValueError, match="temperature is for openai"):
        make_chat("transformers", "m", temperature=0.5)


def test_a_model_that_is_gone_is_unavailable():
    chat = OpenAIChat("m", "http://127.0.0.1:9/v1", backoff=0, max_retries=0)
    with pytest.raises(AnnotatorUnavailableError, match=r"127\.0\.0\.1:9.*ConnectError"):
        chat.ask("What?")
