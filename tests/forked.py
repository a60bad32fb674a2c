"""Child processes, forked off a process that has imported everything and does nothing else.

Each starts in a few milliseconds, where a fresh interpreter imports for seconds.
"""

from __future__ import annotations

from multiprocessing import get_context

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["ureca_lib.annotate.pipeline", "ureca_lib.evaluate.predict", "ureca_lib.train.loop"]
)
