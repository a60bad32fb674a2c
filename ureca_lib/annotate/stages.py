"""The stages of Section 3 and Appendix F as steps that wait for one another.

Stage 2 ("short") goes top-down, siblings in turn from the largest, each seeing those before it
(Table 7). Stage 3 ("long") goes bottom-up (Table 8). Stage 4 ("unique") tells look-alikes apart
(Table 9); what still reads alike is asked again. Stage 5 ("verify") checks the captions of test
sets. A step is ready as soon as the captions that it builds on are there, so that families of
siblings go on side by side, and what it is asked never depends on the order in which other steps
were answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter

from ureca_lib.annotate.look_alikes import Pair, find_clashes, groups
from ureca_lib.annotate.protocol import Context, Stage
from ureca_lib.annotate.records import Answer, Step
from ureca_lib.annotate.settings import CheckSettings
from ureca_lib.mask_tree import MaskTree, RegionId


class ImagePlan:
    """The steps of one image: which can be asked now, and with what context.

    Not thread-safe: one thread calls it, and hands the steps out.

    Args:
        tree: of the image's regions.
        chosen: ids of the regions to caption, top-down, as `TreeSettings.chosen` gives them.
        look_alikes: for each region those it resembles, most similar first; regions that are not
            chosen are left out.
        check: how stage 4 goes.
        verify: whether stage 5 is wanted.
    """

    def __init__(
        self,
        tree: MaskTree,
        chosen: Sequence[RegionId],
        look_alikes: Mapping[RegionId, Sequence[RegionId]],
        check: CheckSettings | None = None,
        verify: bool = False,
    ):
        self.tree, self.chosen = tree, list(chosen)
        self.check = check or CheckSettings()
        inside = set(self.chosen)
        self.look_alikes = {
            region_id: tuple(other for other in look_alikes.get(region_id, ()) if other in inside)
            for region_id in self.chosen
        }
        self.answers: dict[Step, Answer] = {}
        self.captions: dict[RegionId, str] = {}  # after the last round that is over
        self.clashes: list[Pair] = []  # among those captions
        self.round = 1
        self._verify, self._verifying = verify, False
        self._children = {
            parent: [child for child in tree.children(parent) if child in inside]
            for parent in (None, *self.chosen)
        }
        self._before = {  # of each region the larger siblings, or of this round's chain
            child: family[:place]
            for family in self._children.values()
            for place, child in enumerate(family)
        }
        self._partners: dict[RegionId, tuple[RegionId, ...]] = dict(self.look_alikes)
        self._sorter: TopologicalSorter[Step] | None = _sorter(self._first_steps())

    @property
    def finished(self) -> bool:
        """Whether no step is left, neither to hand out nor to record."""
        return self._sorter is None

    def ready(self) -> list[Step]:
        """Steps that can be asked now; each is handed out once. Records those with no question."""
        found: list[Step] = []
        while self._sorter is not None:
            fresh = self._sorter.get_ready()
            if not fresh and self._sorter.is_active():
                break
            if not fresh:
                self._sorter = self._next_phase()
            for step in fresh:
                answer = self._unasked(step)
                if answer is None:
                    found.append(step)
                else:
                    self.record(answer)
        return found

    def record(self, answer: Answer) -> None:
        """Take the answer of a step that was handed out."""
        self.answers[answer.step] = answer
        self._sorter.done(answer.step)

    def context(self, step: Step) -> Context:
        """What a step that is ready is asked with; only captions that it waited for."""
        region_id = step.region_id
        if step.stage == "short":
            parent = self.tree.parent(region_id)
            siblings = self._texts("short", self._before[region_id])
            return Context(parent=self._texts("short", [parent]).get(parent), siblings=siblings)
        if step.stage == "long":
            children = self._texts("long", self._children[region_id])
            current = self._texts("short", [region_id])[region_id]
            return Context(children=children, current=current)
        if step.stage == "unique" and step.round == 1:
            others = self.look_alikes[region_id]
            captions = self._texts("long", [region_id, *others])
            return Context(
                current=captions.pop(region_id), look_alikes=others, look_alike_captions=captions
            )
        others = self._partners[region_id]
        captions = {other: self._seen(step, other) for other in others if other in self.captions}
        return Context(
            current=self.captions[region_id], look_alikes=others, look_alike_captions=captions
        )

    def _first_steps(self) -> dict[Step, list[Step]]:
        """Stages 2, 3 and the first round of 4: for each step those it waits for."""
        steps: dict[Step, list[Step]] = {}
        for region_id in self.chosen:
            short, long = Step("short", 0, region_id), Step("long", 0, region_id)
            parent = self.tree.parent(region_id)
            before = self._before[region_id][-1:] or ([] if parent is None else [parent])
            steps[short] = [Step("short", 0, other) for other in before]
            below = self._children[region_id]
            steps[long] = [short, *(Step("long", 0, child) for child in below)]
            alike = (region_id, *self.look_alikes[region_id])
            steps[Step("unique", 1, region_id)] = [Step("long", 0, other) for other in alike]
        return steps

    def _next_phase(self) -> TopologicalSorter[Step] | None:
        """The next round for captions that clash, then verification, then the end."""
        if self._verifying:
            return None
        self._close_round()
        if self.clashes and self.round < self.check.rounds:
            self.round += 1
            return _sorter(self._round_steps())
        if not self._verify:
            return None
        self._verifying, self._partners = True, dict(self.look_alikes)
        return _sorter({Step("verify", 0, region_id): [] for region_id in self.captions})

    def _close_round(self) -> None:
        for region_id in self.chosen:
            answer = self.answers.get(Step("unique", self.round, region_id))
            if answer is not None and answer.status in ("done", "kept"):
                self.captions[region_id] = answer.text
        self.clashes = find_clashes(self.captions, self.look_alikes, self.check.max_overlap)

    def _round_steps(self) -> dict[Step, list[Step]]:
        """One chain for each set of captions that clash, so that each sees those before it."""
        clashing = neighbors(self.clashes)
        steps: dict[Step, list[Step]] = {}
        for chain in groups(self.clashes, self.chosen):
            for place, region_id in enumerate(chain):
                before = chain[max(place - 1, 0) : place]
                steps[Step("unique", self.round, region_id)] = [
                    Step("unique", self.round, other) for other in before
                ]
                self._before[region_id] = chain[:place]
                shown = dict.fromkeys([*clashing[region_id], *self.look_alikes[region_id]])
                self._partners[region_id] = tuple(shown)[: self.check.most]
        return steps

    def _unasked(self, step: Step) -> Answer | None:
        """The answer of a step that needs no question, or cannot be asked."""
        sources: dict[Stage, Stage] = {"long": "short", "unique": "long"}
        source = sources.get(step.stage)
        if source is None or step.round > 1:
            return None
        before = self.answers[Step(source, 0, step.region_id)]
        if before.status != "done":
            error = before.error if before.status == "blocked" else f"{source}: {before.error}"
            return Answer(step, "", "blocked", error)
        if step.stage == "unique" and not self.look_alikes[step.region_id]:
            return Answer(step, before.text, "kept", unique=before.unique)
        return None

    def _texts(self, stage: Stage, region_ids: Iterable[RegionId | None]) -> dict[RegionId, str]:
        """Captions of stage 2 or 3; regions whose caption failed are left out."""
        found = {}
        for region_id in region_ids:
            answer = self.answers.get(Step(stage, 0, region_id))
            if answer is not None and answer.status == "done":
                found[region_id] = answer.text
        return found

    def _seen(self, step: Step, other: RegionId) -> str:
        """Another region's caption: this round's where it came before in the chain."""
        if step.stage == "unique" and other in self._before[step.region_id]:
            answer = self.answers[step._replace(region_id=other)]
            if answer.status == "done":
                return answer.text
        return self.captions[other]


def neighbors(pairs: Iterable[Pair]) -> dict[RegionId, list[RegionId]]:
    """For each region of the pairs those it is paired with, in their order."""
    found: dict[RegionId, list[RegionId]] = {}
    for one, other in pairs:
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return found


def _sorter(steps: Mapping[Step, Iterable[Step]]) -> TopologicalSorter[Step]:
    sorter = TopologicalSorter(steps)
    sorter.prepare()
    return sorter
