"""A Ray cluster of two CPUs on this machine, as tests start it; skipped where Ray is absent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def small_ray() -> Iterator[str]:
    """Start Ray, and stop it at the end; gives its address."""
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    # short: the paths of Ray's sockets have at most 107 characters
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        try:
            yield _started(ray, folder)
        finally:
            ray.shutdown()


def _started(ray: Any, folder: str, tries: int = 6) -> str:
    """Start Ray, which gives its parts half a minute; on a busy machine they need more."""
    try:
        context = ray.init(
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
        )
    except Exception:
        if tries == 1:
            raise
        ray.shutdown()
        return _started(ray, folder, tries - 1)
    return context.address_info["address"]
