"""Readers and writers of data sets."""

from ureca_lib.datasets.jsonl import QUESTION, caption_rows, read_jsonl, write_jsonl
from ureca_lib.datasets.published import (
    PublishedCaption,
    PublishedDataset,
    PublishedError,
    PublishedImage,
    load_published,
)

__all__ = [
    "QUESTION",
    "PublishedCaption",
    "PublishedDataset",
    "PublishedError",
    "PublishedImage",
    "caption_rows",
    "load_published",
    "read_jsonl",
    "write_jsonl",
]
