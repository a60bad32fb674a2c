"""Readers of data sets: see `ureca_lib.datasets.captioned` for one interface to all of them."""

from ureca_lib.datasets import refcocog as refcocog  # which registers its texts
from ureca_lib.datasets import visual_genome as visual_genome
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages, open_captioned
from ureca_lib.datasets.jsonl import read_jsonl
from ureca_lib.datasets.published import (
    PublishedDataset,
    load_published,
)

__all__ = [
    "CaptionedImage",
    "CaptionedImages",
    "PublishedDataset",
    "load_published",
    "open_captioned",
    "read_jsonl",
]
