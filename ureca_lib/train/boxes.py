"""Boxes in words, for the modules of training; see `ureca_lib.boxes`."""

from ureca_lib.boxes import (
    BOX_BINS,
    BOX_MARKS,
    NUMBERS,
    SCENE_QUESTION,
    box_question,
    box_text,
    told_box,
)

__all__ = [
    "BOX_BINS",
    "BOX_MARKS",
    "NUMBERS",
    "SCENE_QUESTION",
    "box_question",
    "box_text",
    "told_box",
]
