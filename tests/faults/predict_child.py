"""Predicts scenes with a system that takes its time; the kill test's victim."""

from __future__ import annotations

import time
from pathlib import Path

from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.systems import ModelFreeSystem

SCENES = "scenes:test:16"


class SlowSystem(ModelFreeSystem):
    """Shuffled captions, an image at a time."""

    def describe(self, image, regions):
        time.sleep(0.05)
        return super().describe(image, regions)


def predict_slowly(path: Path) -> None:
    """Write the predictions of all scenes."""
    predict(SlowSystem("shuffled", 3), open_captioned(SCENES), path, progress=False)
