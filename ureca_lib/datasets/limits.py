"""The limits of a data set that a machine wrote, as its card states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ureca_lib.datasets.markdown import escaped
from ureca_lib.datasets.statistics import DatasetStatistics

# the paper's Limitation (App. H), dataset curation (App. I), metrics (App. G) and ethics
_TEACHER = """\
- **Bias of the teacher.** What an annotator takes for granted about people, such as which work
  goes with which gender or origin, is written into the captions, and a model trained on them
  learns it and may make it stronger. Captions of people deserve a look before they are used.
- **No human has judged it.** Captions and their uniqueness were made and checked by machines. A
  verifying model tends to agree with people but does not replace them, and a verifier of the
  annotator's own family may share its blind spots.
- **A teacher's style.** Captions have the annotator's wording, favourite attributes and
  mistakes, things that are not there among them. Where training and test captions come from one
  family of models, a good score is partly a measure of likeness to that family.
- **Unique within the photo, as far as was looked.** Regions are compared with those that have a
  mask, and with those that look alike to the features used. A thing without a mask may fit a
  caption too.
- **Scores from word overlap say little about uniqueness**: one word that tells two regions
  apart weighs no more than any other.
"""
_ATTRIBUTES = """\
- **A closed vocabulary.** Captions of the annotator `attributes` are composed by rule from
  colour, shape, place, size, parts and the masks' names. They say nothing that these do not
  hold: no action, material or relation between things. A name is as right as the mask's file.
"""


def limits_text(statistics: DatasetStatistics, settings: Mapping[str, Any]) -> str:
    """The section on limits; which splits were verified is read from the answers."""
    splits = sorted({split for split, _ in statistics.images})
    verifiers: dict[str, set[str]] = {}
    for split, stage, annotator, _ in statistics.work:
        if stage == "verify":
            verifiers.setdefault(split, set()).add(annotator)
    lines = []
    for split in splits:
        by = ", ".join(escaped(name) for name in sorted(verifiers.get(split, ())))
        said = f"was verified by {by}" if by else "was not verified; what it holds is as written"
        lines.append(f"- Split {escaped(split)} {said}.")
    annotators = {annotator for _, _, annotator, _ in statistics.work}
    closed = _ATTRIBUTES if "attributes" in annotators else ""
    return f"## Limits\n\n{_TEACHER}{closed}" + "\n".join(lines) + "\n"
