"""Scoring 10,000 captions with one reference each, and with five, metric by metric.

Captions are made of scenes' words by a seed, some of them like their references, as a trained
model's are. The baseline is pycocoevalcap, where the extra "java" is installed; figures are checked
to agree. Times are of one process: the least of the repeats, by the wall clock and by the
processor's, which other programs do not lengthen.

    python tests/benchmarks/metrics.py [--wordnet FOLDER]
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable

import numpy as np
from record import record

from ureca_lib.evaluate.meteor import find_wordnet, meteor
from ureca_lib.evaluate.ngrams import Pair, bleu, cider, rouge_l
from ureca_lib.evaluate.scores import BootstrapSettings, Score, intervals

COUNT, PER_IMAGE, REPEATS, LENGTH = 10_000, 20, 2, 18
WORDS = (
    "the a small large red blue green striped wooden metal shiny cup mug plate table chair person "
    "man woman dog left right upper lower of in on behind front wearing holding standing sitting "
    "next to with and its handle rim leg sleeve shirt hat window wall near between brown white"
)


def pairs_of(references: int, seed: int = 0) -> list[Pair]:
    """Captions of about 18 words; a reference shares about half of them."""
    generator = random.Random(seed)
    words = WORDS.split()
    made = []
    for _ in range(COUNT):
        caption = generator.choices(words, k=LENGTH + generator.randint(-6, 6))
        texts = []
        for _ in range(references):
            kept = [w if generator.random() < 0.5 else generator.choice(words) for w in caption]
            texts.append(" ".join(kept + generator.choices(words, k=generator.randint(0, 4))))
        made.append((" ".join(caption), texts))
    return made


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """Least seconds by the wall clock and by the processor's, and what the call gave."""
    walls, processor, given = [], [], None
    for _ in range(REPEATS):
        start, busy = time.perf_counter(), time.process_time()
        given = call()
        walls.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    return min(walls), min(processor), given


def baselines(pairs: list[Pair]) -> dict[str, tuple[float, list[float]]]:
    """Processor seconds and figures of pycocoevalcap's Python parts; nothing without the extra."""
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        return {}
    references = {i: list(texts) for i, (_, texts) in enumerate(pairs)}
    captions = {i: [caption] for i, (caption, _) in enumerate(pairs)}
    found = {}
    for name, scorer in (("BLEU", Bleu(4)), ("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        start = time.process_time()
        options = {"verbose": 0} if name == "BLEU" else {}
        value, _ = scorer.compute_score(references, captions, **options)
        found[name] = (time.process_time() - start, np.atleast_1d(value).tolist())
    return found


def rows_of(pairs: list[Pair], what: str, wordnet: str | None) -> list[str]:
    """Rows of the table for one set of captions."""
    synonyms = find_wordnet(wordnet)
    calls: dict[str, Callable[[], list[Score]]] = {
        "BLEU": lambda: bleu(pairs),
        "ROUGE-L": lambda: rouge_l(pairs),
        "CIDEr": lambda: cider(pairs),
        "METEOR": lambda: meteor(pairs, synonyms),
    }
    base = baselines(pairs)
    rows, measured = [], []
    for name, call in calls.items():
        wall, busy, given = timed(call)
        measured += given
        other = "-"
        if name in base:
            if not np.allclose(base[name][1], [one.tally.value for one in given], atol=1e-9):
                raise AssertionError(f"{name}: the figures differ")
            other = f"{base[name][0]:.1f}"
        label = given[0].label if name == "METEOR" else name
        rows.append(f"| {label}, {what} | {wall:.1f} | {busy:.1f} | {other} |")
    groups = np.arange(COUNT) // PER_IMAGE
    for drawn, codes in (("500 images", groups), ("10,000 captions", np.arange(COUNT))):
        wall, busy, _ = timed(
            lambda c=codes: intervals([m.tally for m in measured], c, BootstrapSettings())
        )
        rows.append(f"| intervals of all, 1,000 draws of {drawn} | {wall:.1f} | {busy:.1f} | - |")
    return rows


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wordnet", help="folder of WordNet's files")
    wordnet = parser.parse_args().wordnet
    rows = ["| 10,000 captions | s | processor, s | pycocoevalcap, processor, s |"]
    rows.append("|---|---|---|---|")
    for references, what in ((1, "1 reference"), (5, "5 references")):
        rows += rows_of(pairs_of(references), what, wordnet)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    rows += ["", f"One process. Load of the machine at the end: {load:.1f}."]
    record("Caption metrics", "\n".join(rows), "python tests/benchmarks/metrics.py")


if __name__ == "__main__":
    main()
