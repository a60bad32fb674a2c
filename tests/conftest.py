"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of committed samples."""
    return ROOT / "data_samples"


@pytest.fixture(scope="session")
def peer() -> Path:
    """Vectors made by running other people's implementations; not part of the repository."""
    folder = Path(os.environ.get("URECA_PEER_VECTORS", ROOT.parent / "shared" / "peer"))
    if not folder.is_dir():
        pytest.skip(
            f"no peer vectors at {folder}: set URECA_PEER_VECTORS to the folder that holds them"
        )
    return folder
