"""Annotators for tests: what they say follows from what they are asked, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ureca_lib.annotate.annotators import ModelAnnotator
from ureca_lib.annotate.protocol import Reply, Request
from ureca_lib.chat import OpenAIChat, TransformersChat
from ureca_lib.regions import Region, RegionImage, save_sa1b


def openai_annotator(*arguments, max_corrections: int = 2, **settings) -> ModelAnnotator:
    """An annotator behind a server; arguments of `OpenAIChat`."""
    return ModelAnnotator(OpenAIChat(*arguments, **settings), max_corrections)


def transformers_annotator(*arguments, max_corrections: int = 2, **settings) -> ModelAnnotator:
    """An annotator in this process; arguments of `TransformersChat`."""
    return ModelAnnotator(TransformersChat(*arguments, **settings), max_corrections)


class FakeAnnotator:
    """Words drawn from a hash of the prompt; logs each call to a file before it answers.

    Args:
        name, max_in_flight: as the protocol has them.
        log: a file that gets one line a call.
        latency: seconds a call takes.
        say: makes the reply from the request, instead.
    """

    def __init__(
        self,
        name: str = "fake",
        max_in_flight: int = 4,
        log: Path | None = None,
        latency: float = 0.0,
        say: Callable[[Request], Reply] | None = None,
    ):
        self.name, self.max_in_flight = name, max_in_flight
        self._log, self._latency, self._say = log, latency, say
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.active = self.most_active = 0

    def answer(self, request: Request) -> Reply:
        with self._counted(request):
            if self._latency:
                time.sleep(self._latency)
            return (self._say or distinct_reply)(request)

    @contextmanager
    def _counted(self, request: Request) -> Iterator[None]:
        with self._lock:
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            self.requests.append(request)
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(f"{request.stage} {request.region_id}\n")
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1

    @property
    def calls(self) -> list[tuple[str, int | str]]:
        """(stage, region id) of each call."""
        return [(request.stage, request.region_id) for request in self.requests]


class AsyncAnnotator(FakeAnnotator):
    """The same with a coroutine, as annotators have that ask a server."""

    async def answer_async(self, request: Request) -> Reply:
        with self._counted(request):
            await asyncio.sleep(self._latency)
            return (self._say or distinct_reply)(request)


def distinct_reply(request: Request) -> Reply:
    """A caption that depends on the prompt and on the region; "keep" when it is asked to verify."""
    if request.stage == "verify":
        return Reply("keep", prompt_tokens=7, reply_tokens=1)
    said = hashlib.sha256(f"{request.region_id}/{request.prompt}".encode()).hexdigest()[:8]
    text = f"{request.stage} caption {said} of region {request.region_id}"
    return Reply(text, prompt_tokens=len(request.prompt) // 4, reply_tokens=5)


def small_image(seed: int, side: int = 48) -> RegionImage:
    """An image with a seven-region tree: two objects, twins in each, and a background."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 255, (side, side, 3), np.uint8)
    half, quarter = side // 2, side // 4
    boxes = {
        1: (0, 0, side, half),
        2: (0, half, side, half),
        3: (2, 2, half - 4, half - 4),
        4: (half + 2, 2, half - 4, half - 4),
        5: (4, 4, quarter - 4, quarter - 4),
        "six": (4, half + 4, quarter, quarter),
        "7": (half, half + 4, quarter, quarter),
    }
    regions = []
    for region_id, (x, y, columns, rows) in boxes.items():
        mask = np.zeros((side, side), bool)
        mask[y : y + rows, x : x + columns] = True
        regions.append(Region.from_mask(region_id, mask))
    return RegionImage(regions, side, side, pixels, image_id=seed, file_name=f"image_{seed}.png")


def write_images(folder: Path, count: int, side: int = 48) -> list[Path]:
    """Small images as PNG files with their JSON beside; returns the JSON files."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        image = small_image(seed, side)
        path = folder / f"image_{seed}.json"
        Image.fromarray(image.pixels).save(path.with_suffix(".png"))
        save_sa1b(image, path)
        paths.append(path)
    return paths
