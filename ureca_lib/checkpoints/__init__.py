"""Checkpoints of others: the published URECA layout and InternVL folders."""

from ureca_lib.checkpoints.convert import convert
from ureca_lib.checkpoints.errors import CheckpointError, CheckpointKeysError
from ureca_lib.checkpoints.internvl import from_internvl_chat, from_internvl_hf
from ureca_lib.checkpoints.official import load_official
from ureca_lib.checkpoints.pair import load_pair

__all__ = [
    "CheckpointError",
    "CheckpointKeysError",
    "convert",
    "from_internvl_chat",
    "from_internvl_hf",
    "load_official",
    "load_pair",
]
