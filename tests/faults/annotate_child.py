"""Annotates a folder with a fake annotator that logs its calls; the kill test's victim."""

from __future__ import annotations

from pathlib import Path

from fake_annotators import FakeAnnotator, distinct_reply

from ureca_lib.annotate.protocol import Reply, Request
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import SplitRule
from ureca_lib.annotate.views import ViewSettings

IN_FLIGHT = 4


def say(request: Request) -> Reply:
    """As the fake does, but twins that stay alike for one round, and twins that always do."""
    if request.stage == "unique" and request.region_id in (3, 4):
        return Reply("one of a pair")
    first = (request.context.current or "").startswith("long")
    if request.stage == "unique" and request.region_id in ("six", "7") and first:
        return Reply("twin")
    return distinct_reply(request)


def main(folder: Path, store: Path, log: Path, latency: float) -> None:
    """Annotate all images of a folder into a store."""
    annotator = FakeAnnotator(max_in_flight=IN_FLIGHT, log=log, latency=latency, say=say)
    settings = PipelineSettings(views=ViewSettings(min_side=0), verify_splits=("test",))
    rule = SplitRule({"test": 0.5})
    annotate_images(folder, store, annotator, settings, splits=rule, progress=False)
