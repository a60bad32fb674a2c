"""Predicts scenes with a system that takes its time; the kill test's victim."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.predict import predict
from ureca_lib.evaluate.systems import ShuffledSystem


class SlowSystem(ShuffledSystem):
    """Shuffled captions, an image at a time."""

    def describe(self, image, regions):
        time.sleep(0.05)
        return super().describe(image, regions)


if __name__ == "__main__":
    predict(SlowSystem(3), open_captioned("scenes:test:40"), Path(sys.argv[1]), progress=False)
