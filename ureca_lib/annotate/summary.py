"""What a run of the pipeline did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ureca_lib.annotate.records import STATES


@dataclass
class Summary:
    """What a run did."""

    images: int = 0  # that were meant
    already: int = 0  # finished by an earlier run, with the same inputs
    done: int = 0  # finished by this run, without a failure
    partial: int = 0  # finished by this run, with answers that failed
    failed: int = 0  # could not be read
    elsewhere: int = 0  # being worked on by another process
    calls: int = 0  # of an annotator
    reused: int = 0  # answers taken from the store
    states: Counter[str] = field(default_factory=Counter)  # of the regions finished by this run
    stopped: str | None = None  # why the run ended early
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every image is finished and nothing failed."""
        return self.stopped is None and self.images == self.already + self.done

    def __str__(self) -> str:
        states = ", ".join(f"{self.states[state]} {state}" for state in STATES)
        text = (
            f"{self.images} images: {self.done} done, {self.already} were done before, "
            f"{self.partial} with failed answers, {self.failed} unreadable, "
            f"{self.elsewhere} in another process; regions: {states}; "
            f"{self.calls} calls, {self.reused} answers kept, {self.seconds:.1f} s"
        )
        return text if self.stopped is None else f"{text}; stopped: {self.stopped}"
