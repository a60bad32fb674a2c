"""A Ray cluster of two CPUs on this machine, as tests start it; skipped where Ray is absent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def small_ray() -> Iterator[str]:
    """Start Ray, and stop it at the end; gives its address."""
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    # short: the paths of Ray's sockets have at most 107 characters
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        context = ray.init(
            num_cpus=2,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
        )
        try:
            yield context.address_info["address"]
        finally:
            ray.shutdown()
