"""Status of a store: what is done, what failed and why, the rate, and the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import STATES
from ureca_lib.annotate.store import Store

_SHOWN = 10  # failures and unresolved regions that are listed


@dataclass(frozen=True)
class StoreStatus:
    """Counts of a store.

    Args:
        images: by split and status.
        answers: by stage and status.
        states: of the regions of finished images.
        failures: "image" or the stage, reason, number and an example; the most frequent first.
        unresolved: the first regions without a unique caption: image, region, reason.
        calls: number, seconds, prompt and reply tokens of all stored answers.
        rate: images per second of the latest run; None before its first image.
        left: seconds until all images are finished at that rate.
        stopped: the reason why the latest run ended early.
    """

    images: Counter[tuple[str, str]]
    answers: Counter[tuple[str, str]]
    states: Counter[str]
    failures: tuple[tuple[str, str, int, str], ...]
    unresolved: tuple[tuple[str, str, str], ...]
    calls: tuple[int, float, int, int]
    rate: float | None
    left: float | None
    stopped: str | None

    def __str__(self) -> str:
        lines = [f"images    {_counts((' '.join(key), n) for key, n in self.images.items())}"]
        for name in STAGES:
            counts = ((status, n) for (stage, status), n in self.answers.items() if stage == name)
            lines.append(f"{name:<9} {_counts(counts)}")
        states = [f"{self.states[state]} {state}" for state in STATES if self.states[state]]
        lines.append(f"regions   {', '.join(states) or 'none yet'}")
        number, seconds, prompt, reply = self.calls
        mean = f", {seconds / number:.2f} s each" if number else ""
        lines.append(f"calls     {number:,}{mean}; {prompt:,} + {reply:,} tokens")
        rate = "none yet" if self.rate is None else f"{60 * self.rate:.3g} images a minute"
        left = "" if self.left is None else f", {tqdm.format_interval(self.left)} left"
        lines.append(f"rate      {rate}{left}")
        if self.stopped:
            lines.append(f"stopped   {self.stopped}")
        for what, reason, count, example in self.failures:
            lines.append(f"failed    {count} x {what}: {reason} ({example})")
        for image, region, reason in self.unresolved:
            lines.append(f"alike     {image}, region {region}: {reason}")
        more = self.states["unresolved"] - len(self.unresolved)
        return "\n".join([*lines, f"alike     and {more:,} more"] if more > 0 else lines)


def read_status(*stores: Store) -> StoreStatus:
    """The status of a store, or of all shards of a run; it may be read during the run."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return [row for store in stores for row in store.rows(query)]

    def counts(query: str) -> Counter[Any]:
        found: Counter[Any] = Counter()
        for key, *more, count in rows(query):
            found[(key, *more) if more else key] += count
        return found

    images = counts("SELECT split, status, count(*) FROM images GROUP BY 1, 2")
    sums = "count(*), total(seconds), total(prompt_tokens), total(reply_tokens)"
    calls = rows(f"SELECT {sums} FROM answers WHERE status IN ('done', 'failed')")
    number, seconds, *tokens = map(sum, zip(*calls, strict=True))
    failures = rows(
        "SELECT 'image', error, count(*), min(image) FROM images WHERE status='failed' GROUP BY 2 "
        "UNION ALL SELECT stage, error, count(*), min(image || ', region ' || region) FROM answers "
        f"WHERE status='failed' GROUP BY 1, 2 ORDER BY 3 DESC LIMIT {_SHOWN}"
    )
    unresolved = "SELECT image, region, reason FROM captions WHERE state='unresolved'"
    runs = rows("SELECT images, updated - started, stopped FROM runs ORDER BY id DESC LIMIT 1")
    # shards that run at a time add up
    rate = sum(done / lasted for done, lasted, _ in runs if done and lasted > 0) or None
    waiting = sum(count for (_, status), count in images.items() if status == "waiting")
    return StoreStatus(
        images,
        counts("SELECT stage, status, count(*) FROM answers GROUP BY 1, 2"),
        counts("SELECT state, count(*) FROM captions GROUP BY 1"),
        tuple(sorted(failures, key=lambda row: -row[2])[:_SHOWN]),
        tuple(rows(f"{unresolved} LIMIT {_SHOWN}")[:_SHOWN]),
        (number, seconds, *map(int, tokens)),
        rate,
        waiting / rate if rate else None,
        "; ".join(dict.fromkeys(stopped for *_, stopped in runs if stopped)) or None,
    )


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts)) or "none"
