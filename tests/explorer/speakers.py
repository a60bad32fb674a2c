"""Captioners with known answers, and a drawn image to explore."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from annotate.drawn import BLUE, GREEN, RED, image_of, rectangle

from ureca_lib.regions import RegionImage

SIZE = (60, 80)


def nested_image() -> RegionImage:
    """Two equal boxes side by side, 1 and 2; lid 3 in box 1, knob 4 in the lid; 5 contains 1."""
    masks = [
        rectangle(SIZE, 10, 10, 20, 20),
        rectangle(SIZE, 50, 10, 20, 20),
        rectangle(SIZE, 12, 12, 14, 8),
        rectangle(SIZE, 15, 14, 4, 4),
        rectangle(SIZE, 6, 6, 28, 40),
    ]
    colors = [RED, RED, GREEN, BLUE, (200, 200, 200)]
    return image_of(masks, ["box", "box", "lid", "knob", "tray"], colors)


@dataclass
class Said:
    """A caption of a model."""

    region_id: int | str
    text: str
    score: float = -0.5


class Speaker:
    """Captions with the given texts, or "thing ID"; records its calls."""

    def __init__(self, texts: dict | None = None):
        self.texts, self.asked = texts or {}, []
        self.threads: set[str] = set()

    def caption(self, image, regions, *, progress=True):
        assert image.shape == (*SIZE, 3)
        assert progress is False  # a bar has no place in the interface
        self.asked.append([region.id for region in regions])
        self.threads.add(threading.current_thread().name)
        return [Said(one.id, self.texts.get(one.id, f"thing {one.id}")) for one in regions]


class Listener(Speaker):
    """Scores too: a caption fits the regions whose ids it contains, by `sharpness` better."""

    def __init__(self, texts: dict | None = None, sharpness: float = 2.0):
        super().__init__(texts)
        self.sharpness, self.scored = sharpness, []

    def score(self, image, regions, captions, progress=True):
        assert progress is False  # a bar has no place in the interface
        self.scored.append(list(captions))
        words = [set(caption.split()) for caption in captions]
        fits = [[str(region.id) in said for said in words] for region in regions]
        return self.sharpness * np.array(fits, np.float32) - 100
