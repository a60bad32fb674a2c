"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import matplotlib
import pytest

matplotlib.use("Agg")
# no test is timed: a machine may be busy with others
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
# a job in a shell's background starts with interrupts ignored, and tests send some
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SLOWEST = ("faults", "browser", "train")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the slowest folders where several workers share the files of tests.

    A worker that starts on one of them last would still run when the others are done.
    """
    if hasattr(config, "workerinput"):
        places = {folder: place for place, folder in enumerate(SLOWEST)}
        items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


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
