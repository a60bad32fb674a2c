"""Checkpoints of others: the published URECA layout and InternVL `-hf` folders."""

from ureca_lib.checkpoints.errors import CheckpointError, CheckpointKeysError
from ureca_lib.checkpoints.official import load_official

__all__ = ["CheckpointError", "CheckpointKeysError", "load_official"]
