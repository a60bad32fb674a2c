"""Freed memory is returned to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

HELD = """
import psutil
from ureca_lib.decoding import give_back_freed
blocks = [bytes(10_000) for _ in range(30_000)]  # 300 MB
kept = blocks[::100]
del blocks
before = psutil.Process().memory_info().rss
give_back_freed()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_memory_below_a_block_in_use_is_returned():
    found = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 200e6
