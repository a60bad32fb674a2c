"""What a run of the pipeline did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ureca_lib.annotate.records import STATES

MOST_FAILURES = 5  # of which a summary says where and why


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
    lost: int = 0  # answers that failed, of all images
    states: Counter[str] = field(default_factory=Counter)  # of the regions finished by this run
    stored: int = 0  # regions of finished images that the store holds at the end
    failures: list[tuple[str, str]] = field(default_factory=list)  # the first: image, why
    stopped: str | None = None  # why the run ended early
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every image is finished and nothing failed."""
        return self.stopped is None and self.images == self.already + self.done

    def __str__(self) -> str:
        images = _counts(
            (self.done, "done"),
            (self.already, "were done before"),
            (self.partial, "with failed answers"),
            (self.failed, "unreadable"),
            (self.elsewhere, "in another process"),
        )
        parts = [f"{counted(self.images, 'image')}: {images or 'none finished'}"]
        if states := _counts(*((self.states[state], state) for state in STATES)):
            parts.append(f"regions: {states}")
        elif self.already:
            parts.append(f"the store holds {counted(self.stored, 'region')}")
        kept = f", {counted(self.reused, 'answer')} kept" if self.reused else ""
        parts.append(f"{counted(self.calls, 'call')}{kept}, {self.seconds:.1f} s")
        if self.stopped is not None:
            parts.append(f"stopped: {self.stopped}")
        return "; ".join(parts)


def _counts(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def counted(count: int, what: str) -> str:
    """A number and a noun: 1 image, 2 images."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
