"""Readers of data sets: see `ureca_lib.datasets.captioned` for one interface to all of them."""

# these register what they read
from ureca_lib.datasets import benchmarks as benchmarks
from ureca_lib.datasets import refcocog as refcocog
from ureca_lib.datasets import visual_genome as visual_genome
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages, open_captioned
from ureca_lib.datasets.published import load_published
from ureca_lib.datasets.rows import read_jsonl

__all__ = ["CaptionedImage", "CaptionedImages", "load_published", "open_captioned", "read_jsonl"]
