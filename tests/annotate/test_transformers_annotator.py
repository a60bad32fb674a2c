"""An annotator with a tiny LLaVA, taught here to name the color of what it sees."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_annotators import (
    openai_annotator,
    small_image,
    transformers_annotator,
    write_images,
)
from PIL import Image
from tiny_models import tiny_tokenizer
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import is_serve_available

from ureca_lib.annotate.annotators import ModelAnnotator
from ureca_lib.annotate.protocol import (
    Annotator,
    AnnotatorUnavailableError,
    Context,
    Request,
)
from ureca_lib.annotate.replies import correction
from ureca_lib.annotate.run import annotate_images
from ureca_lib.mask_tree import build_mask_tree

COLORS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
RUDE = "Name it."  # asked so, the model says "main object" until it is corrected
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_processor() -> LlavaProcessor:
    side = {"height": 28, "width": 28}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=side)
    return LlavaProcessor(
        pictures,
        tiny_tokenizer(("<image>",)),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def tiny_llava(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    tokenizer = processor.tokenizer
    size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 4}
    vision = size | {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    text = size | {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token)
    return LlavaForConditionalGeneration(config)


def picture(color: str, side: int = 28) -> np.ndarray:
    return np.full((side, side, 3), COLORS[color], np.uint8)


def lessons() -> list[tuple[list[dict], str]]:
    """Conversations and what is to be said at their end."""
    found = []
    for color in COLORS:
        image = {"type": "image", "image": Image.fromarray(picture(color))}
        for prompt, views in (("Describe it.", 1), ("Describe it.", 2), (RUDE, 1)):
            parts = [image]
            if views == 2:
                named = [{"type": "text", "text": f"Image-{i}:"} for i in (1, 2)]
                parts = [named[0], image, named[1], image]
            content = [*parts, {"type": "text", "text": prompt}]
            opening = {"role": "user", "content": content}
            say = "main object" if prompt == RUDE else f"a {color} mug"
            found.append(([opening], say))
            if prompt == RUDE:
                turns = [
                    ("assistant", say),
                    ("user", correction("short", ['calls it the "main object"'])),
                ]
                rest = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in turns]
                found.append(([opening, *rest], f"a {color} mug"))
    return found


def teach(network: LlavaForConditionalGeneration, processor: LlavaProcessor, steps: int) -> None:
    """Learn the lessons by heart."""
    asked = lessons()
    full = [
        [*turns, {"role": "assistant", "content": [{"type": "text", "text": text}]}]
        for turns, text in asked
    ]
    inputs = processor.apply_chat_template(
        full,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "right"},
    )
    labels = torch.full_like(inputs["input_ids"], -100)
    for i, (_, text) in enumerate(asked):
        end = int(inputs["attention_mask"][i].sum()) - 1  # a line break follows the end token
        start = end - len(text) - 1  # a token a letter
        labels[i, start:end] = inputs["input_ids"][i, start:end]
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        network(**inputs, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that has learned its lessons, saved."""
    path = tmp_path_factory.mktemp("llava")
    processor = tiny_processor()
    network = tiny_llava(processor)
    teach(network, processor, steps=50)
    network.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def annotator(folder) -> ModelAnnotator:
    return transformers_annotator(
        str(folder), batch_size=4, max_new_tokens=16, batch_wait=0.2, local_files_only=True
    )


@pytest.fixture
def batches(annotator, monkeypatch) -> Iterator[list[int]]:
    """Sizes of the batches that reach the model."""
    sizes: list[int] = []
    generate = annotator.chat._network.generate

    def counted(**inputs):
        sizes.append(len(inputs["input_ids"]))
        return generate(**inputs)

    monkeypatch.setattr(annotator.chat._network, "generate", counted)
    return sizes


def question(color: str, views: int = 1, prompt: str = "Describe it.") -> Request:
    image = small_image(0)
    tree = build_mask_tree(image.regions)
    pictures = [picture(color)] * views
    return Request("short", image, tree, 3, prompt, "short/1", pictures, Context())


def test_the_model_sees_the_view_and_reads_the_prompt(annotator):
    for color in COLORS:
        reply = annotator.answer(question(color))
        assert (reply.text, reply.status, reply.attempts) == (f"a {color} mug", "done", 1)
        # a token a letter, and one a special token: 4 of the image, 4 that end or begin a turn
        assert reply.prompt_tokens == 4 + 3 + len("user\nDescribe it.\nassistant\n")
        assert reply.reply_tokens == len(reply.text)
    assert isinstance(annotator, Annotator)
    assert annotator.name.startswith("transformers:") and annotator.max_in_flight == 8


def test_threads_are_gathered_and_each_gets_its_own_answer(annotator, batches):
    asked = [question(color, views) for color in COLORS for views in (1, 2)] * 2
    with ThreadPoolExecutor(len(asked)) as pool:
        replies = list(pool.map(annotator.answer, asked))
    for request, reply in zip(asked, replies, strict=True):
        color = next(c for c in COLORS if np.array_equal(picture(c), request.views[0]))
        assert reply.text == f"a {color} mug"
    assert sum(batches) == 12 and max(batches) == 4 and len(batches) <= 6


def test_a_batch_says_what_each_says_alone(annotator):
    asked = [
        question("red", 2),
        question("blue", 1, "Describe it. " * 7),
        question("green", 1, RUDE),
    ]
    alone = [annotator.answer(request) for request in asked]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(annotator.answer, asked)) == alone


def test_a_lonely_question_waits_a_moment_only(annotator, batches):
    start = time.monotonic()
    annotator.answer(question("red"))
    assert batches == [1]
    assert 0.2 <= time.monotonic() - start < 5


def test_a_bad_reply_is_sent_back(annotator):
    reply = annotator.answer(question("blue", prompt=RUDE))
    assert (reply.text, reply.status, reply.attempts) == ("a blue mug", "done", 2)


def test_a_reply_that_stays_bad_is_failed(folder):
    stubborn = transformers_annotator(str(folder), max_new_tokens=16, max_corrections=0)
    reply = stubborn.answer(question("blue", prompt=RUDE))
    assert reply.status == "failed" and 'the "main object"' in reply.error
    assert reply.text == "main object"


def test_a_reply_without_an_end_is_failed(folder):
    short = transformers_annotator(str(folder), max_new_tokens=4, max_corrections=1)
    reply = short.answer(question("red"))
    assert reply.status == "failed" and "cut off" in reply.error and reply.attempts == 2


def test_one_bad_question_fails_alone(annotator, batches):
    bad = replace(question("red"), prompt="an <image> that is not there")
    asked = [question("green"), bad, question("blue"), question("red")]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(annotator.answer, asked))
    assert [reply.status for reply in replies] == ["done", "failed", "done", "done"]
    assert [replies[i].text for i in (0, 2, 3)] == ["a green mug", "a blue mug", "a red mug"]
    assert annotator.name in replies[1].error


def test_a_model_that_fails_on_every_question_ends_the_run(folder):
    annotator = transformers_annotator(str(folder), batch_wait=0, give_up_after=2)
    bad = replace(question("red"), prompt="an <image> that is not there")
    ends = [annotator.answer(request).status for request in (bad, question("red"), bad)]
    assert ends == ["failed", "done", "failed"]
    with pytest.raises(AnnotatorUnavailableError, match=r"2 questions in a row.*transformers:"):
        annotator.answer(bad)


def test_threads_get_their_answers_when_the_main_one_is_interrupted(annotator, monkeypatch):
    generate, entered = annotator.chat._network.generate, threading.Event()

    def slow(**inputs):
        entered.set()
        time.sleep(0.5)
        return generate(**inputs)

    monkeypatch.setattr(annotator.chat._network, "generate", slow)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(annotator.answer, question("red")) for _ in range(2)]
        futures.append(pool.submit(lambda: entered.wait(20) and signal.raise_signal(signal.SIGINT)))
        with pytest.raises(KeyboardInterrupt):
            annotator.answer(question("blue"))
    assert [future.result().status for future in futures[:2]] == ["done", "done"]
    assert annotator.answer(question("red")).status == "done"


def test_no_thread_waits_for_ever_when_a_batch_is_broken_off(annotator, monkeypatch):
    def broken_off(**inputs):
        raise SystemExit

    monkeypatch.setattr(annotator.chat._network, "generate", broken_off)
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(annotator.answer, [question("red")] * 3, timeout=20))
    assert {reply.status for reply in replies} == {"failed"}
    monkeypatch.undo()
    assert annotator.answer(question("red")).status == "done"


def test_other_precision(folder):
    half = transformers_annotator(str(folder), dtype="bfloat16", max_new_tokens=16)
    assert half.chat._network.dtype == torch.bfloat16
    assert half.answer(question("green")).text == "a green mug"
    assert half.answer_settings == {"dtype": "bfloat16", "max_new_tokens": 16}


def test_the_pipeline_takes_it(folder, tmp_path):
    """Real prompts and views; the tiny model cannot answer them, and each failure is recorded."""
    images = write_images(tmp_path / "images", 1)
    settings = {"max_new_tokens": 4, "local_files_only": True}
    quick = transformers_annotator(str(folder), max_corrections=0, **settings)
    summary = annotate_images(images, tmp_path / "s.db", quick, progress=False)
    assert summary.stopped is None and summary.calls > 0
    assert (summary.partial, summary.failed) == (1, 0)


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(AnnotatorUnavailableError, match="no_such_model"):
        transformers_annotator(str(tmp_path / "no_such_model"), local_files_only=True)


def test_a_processor_without_a_template_is_named(folder, tmp_path):
    for path in folder.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(AnnotatorUnavailableError, match="chat template"):
        transformers_annotator(str(tmp_path), local_files_only=True)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"max_new_tokens": 0}, {"batch_wait": float("nan")}]
)
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        transformers_annotator("never/loaded", **settings)


@pytest.fixture
def served(folder, tmp_path) -> Iterator[str]:
    """The address of `transformers serve` with the tiny model."""
    if not is_serve_available():
        pytest.skip("transformers serve needs fastapi, uvicorn and openai")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    arguments = ["serve", str(folder), "--device", "cpu", "--host", "127.0.0.1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    log = tmp_path / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--port", str(port)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                opener.open(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def test_transformers_serve_says_what_the_model_says_here(served, folder, annotator, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    there = openai_annotator(str(folder), served, image_format="png", max_reply_tokens=16)
    asked = [("red", 1, "Describe it."), ("blue", 2, "Describe it."), ("green", 1, RUDE)]
    for color, views, prompt in asked:
        reply = there.answer(question(color, views, prompt))
        here = annotator.answer(question(color, views, prompt))
        assert (reply.text, reply.attempts) == (here.text, here.attempts)
        assert reply.text == f"a {color} mug" and reply.prompt_tokens > 30
