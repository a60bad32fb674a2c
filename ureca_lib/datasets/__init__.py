"""Readers of data sets: see `ureca_lib.datasets.captioned` for one interface to all of them."""

from ureca_lib.datasets.jsonl import read_jsonl
from ureca_lib.datasets.published import (
    PublishedCaption,
    PublishedDataset,
    PublishedError,
    PublishedImage,
    load_published,
)

__all__ = [
    "PublishedCaption",
    "PublishedDataset",
    "PublishedError",
    "PublishedImage",
    "load_published",
    "read_jsonl",
]
