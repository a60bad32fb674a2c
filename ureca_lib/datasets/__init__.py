"""Readers and writers of data sets."""

from ureca_lib.datasets.jsonl import QUESTION, caption_rows, read_jsonl, write_jsonl

__all__ = ["QUESTION", "caption_rows", "read_jsonl", "write_jsonl"]
