"""Checkpoints of others: the published URECA layout and InternVL folders."""

from ureca_lib.checkpoints.internvl import from_internvl_chat, from_internvl_hf
from ureca_lib.checkpoints.loading import convert, load_model_and_processor
from ureca_lib.checkpoints.official import load_official
from ureca_lib.checkpoints.tensors import CheckpointError, CheckpointKeysError

__all__ = [
    "CheckpointError",
    "CheckpointKeysError",
    "convert",
    "from_internvl_chat",
    "from_internvl_hf",
    "load_model_and_processor",
    "load_official",
]
