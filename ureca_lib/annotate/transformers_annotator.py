"""An annotator in this process: any image-text-to-text model of transformers, in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ureca_lib.annotate.lost_questions import LostQuestions
from ureca_lib.annotate.protocol import AnnotatorUnavailableError, Reply, Request
from ureca_lib.annotate.replies import Draft, NoAnswerError, Turn, answer_checked

Conversation = list[dict[str, Any]]


@dataclass(eq=False)
class _Job:
    """A conversation that waits for the model, then what came of it."""

    conversation: Conversation
    result: Draft | Exception | None = None


@dataclass(frozen=True, eq=False)
class TransformersAnnotator:
    """Asks a model loaded here; what several threads ask at a time is generated in one batch.

    Decoding is greedy. Nothing but weights is loaded: no code of a model's repository runs.

    Raises:
        AnnotatorUnavailableError: the model cannot be loaded, or has no chat template.
        ValueError: a setting out of range.
    """

    model: str = field(metadata={"help": "folder or hub id of the model"})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1, mps, ..."})
    dtype: str = field(
        default="auto", metadata={"help": "float32, bfloat16, ...; auto is that of the weights"}
    )
    batch_size: int = field(default=4, metadata={"help": "most questions that go together"})
    max_new_tokens: int = field(default=256, metadata={"help": "a longer reply is cut, and bad"})
    batch_wait: float = field(
        default=0.02, metadata={"help": "seconds that a batch waits to be filled"}
    )
    max_corrections: int = field(
        default=2, metadata={"help": "most times that a bad reply is sent back"}
    )
    give_up_after: int = field(
        default=32, metadata={"help": "questions lost in a row at which the run ends"}
    )
    local_files_only: bool = field(
        default=False, metadata={"help": "never ask the hub, as without a network"}
    )
    name: str = field(init=False, repr=False)
    max_in_flight: int = field(init=False, repr=False)
    _network: Any = field(init=False, repr=False)
    _processor: Any = field(init=False, repr=False)
    _turn: threading.Lock = field(init=False, repr=False)
    _arrived: threading.Condition = field(init=False, repr=False)
    _waiting: deque[_Job] = field(init=False, repr=False)
    _lost: LostQuestions = field(init=False, repr=False)

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "max_new_tokens": 1, "batch_wait": 0, "max_corrections": 0}
        least |= {"give_up_after": 1}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"{name} is at least {value}, not {getattr(self, name)}")
        put = object.__setattr__
        put(self, "name", f"transformers:{self.model}")
        # the next batch is asked and prepared while one is generated
        put(self, "max_in_flight", 2 * self.batch_size)
        network, processor = _load(self.model, self.device, self.dtype, self.local_files_only)
        put(self, "_network", network)
        put(self, "_processor", processor)
        put(self, "_turn", threading.Lock())
        put(self, "_arrived", threading.Condition())
        put(self, "_waiting", deque())
        put(self, "_lost", LostQuestions(self.give_up_after))

    @property
    def answer_settings(self) -> dict[str, Any]:
        """What decides an answer besides the model; the rest only how it is got."""
        return {"dtype": self.dtype, "max_new_tokens": self.max_new_tokens}

    def answer(self, request: Request) -> Reply:
        """Answer one question.

        Returns:
            The checked reply, or a failed one that says why.

        Raises:
            AnnotatorUnavailableError: the model failed on `give_up_after` questions in a row.
        """
        opening = _opening(request)

        def say(turns: Sequence[Turn]) -> Draft:
            rest = [{"role": turn.role, "content": [_text(turn.text)]} for turn in turns]
            return self._generate([opening, *rest])

        return answer_checked(request.stage, say, self.max_corrections)

    def _generate(self, conversation: Conversation) -> Draft:
        """Wait for a place in a batch; the thread whose turn it is runs the model for all of it."""
        job = _Job(conversation)
        with self._arrived:
            self._waiting.append(job)
            self._arrived.notify_all()
        while job.result is None:
            with self._turn:
                if job.result is None:
                    self._run_all(self._next_batch())
        if isinstance(job.result, Exception):
            error = job.result
            message = f"{self.name}: {type(error).__name__}: {error}"
            self._lost.add(message)
            raise NoAnswerError(message) from error
        self._lost.end()
        return job.result

    def _next_batch(self) -> list[_Job]:
        """The jobs that came first; waits a moment for more. Never empty: the caller's is there."""
        end = time.monotonic() + self.batch_wait
        with self._arrived:
            while len(self._waiting) < self.batch_size:
                if not self._arrived.wait(end - time.monotonic()):
                    break
            count = min(self.batch_size, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def _run_all(self, jobs: Sequence[_Job]) -> None:
        """Give every job its result, whatever happens, for threads wait for them."""
        try:
            self._run(jobs)
        finally:
            for job in jobs:
                if job.result is None:
                    job.result = RuntimeError("interrupted")

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Generate; where a batch fails, its halves are tried, so that one job fails alone."""
        try:
            for job, draft in zip(jobs, self._reply(jobs), strict=True):
                job.result = draft
            return
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold the memory of the batch
        if len(jobs) == 1:
            jobs[0].result = failure
            return
        half = len(jobs) // 2
        self._run(jobs[:half])
        self._run(jobs[half:])

    def _reply(self, jobs: Sequence[_Job]) -> list[Draft]:
        """Replies to the conversations of B jobs."""
        import torch

        inputs = self._processor.apply_chat_template(
            [job.conversation for job in jobs],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self._network.device, dtype=self._network.dtype)
        with torch.inference_mode():
            ids = self._network.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=self._pad(),
            )
        length = inputs["input_ids"].shape[1]
        prompts = inputs["attention_mask"].sum(1).tolist()
        # (B, prompt + reply) -> (B, reply)
        return [
            self._draft(row, count) for row, count in zip(ids[:, length:], prompts, strict=True)
        ]

    def _draft(self, row: Any, prompt_tokens: int) -> Draft:
        """A row of generated ids (L,) as a reply; it is cut where no end token stands in it."""
        ends = _ends(self._network.generation_config.eos_token_id)
        ids = row.tolist()
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        kept = ids if stop is None else ids[:stop]
        text = self._processor.decode(kept, skip_special_tokens=True)
        problem = "was cut off before its end" if stop is None else None
        return Draft(text, prompt_tokens, len(kept), problem=problem)

    def _pad(self) -> int | None:
        pad = self._processor.tokenizer.pad_token_id
        return pad if pad is not None else self._processor.tokenizer.eos_token_id


def _ends(eos: int | list[int] | None) -> set[int]:
    if eos is None:
        return set()
    return {eos} if isinstance(eos, int) else set(eos)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _opening(request: Request) -> dict[str, Any]:
    """The first turn: the views, named as the prompts name them, and the prompt."""
    parts: list[dict[str, Any]] = []
    for number, view in enumerate(request.views, start=1):
        if len(request.views) > 1:
            parts.append(_text(f"Image-{number}:"))
        parts.append({"type": "image", "image": Image.fromarray(view)})
    return {"role": "user", "content": [*parts, _text(request.prompt)]}


def _load(model: str, device: str, dtype: str, local_files_only: bool) -> tuple[Any, Any]:
    """The model, on its device, and its processor."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    options = {"local_files_only": local_files_only, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(model, **options)
        network = AutoModelForImageTextToText.from_pretrained(
            model, dtype=dtype, use_safetensors=True, **options
        )
        network = network.to(device).eval()
    except Exception as error:  # whatever is wrong with files, hub or device
        message = f"{model} cannot be loaded on {device}: {type(error).__name__}: {error}"
        raise AnnotatorUnavailableError(message) from error
    if not getattr(processor, "chat_template", None):
        raise AnnotatorUnavailableError(f"{model}: its processor has no chat template")
    return network, processor
