"""The annotation stages of Section 3 and Appendix F for one image, one coroutine per caption.

Stage 1, the mask tree, is built before (`TreeSettings`). Then each caption awaits the captions
that it builds on:

    stage 2, "short" (Table 7)   the parent's short caption and those of the larger siblings
    stage 3, "long" (Table 8)    the region's short caption and its children's long captions
    stage 4, "unique" (Table 9)  the long captions of the region and of its look-alikes
        rounds after the first   all captions of the round before; then regions whose captions
                                 still clash, in turn
    stage 5, "verify"            all captions of the last round

Nothing else is awaited, so stages and branches of the tree overlap freely, and the question about
a caption never depends on the order in which other questions are answered.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from ureca_lib.annotate.look_alikes import Pair, find_clashes, groups
from ureca_lib.annotate.protocol import Context, Stage
from ureca_lib.annotate.records import Answer, FinalCaption, State, Step
from ureca_lib.annotate.settings import CheckSettings
from ureca_lib.mask_tree import MaskTree, RegionId

Ask = Callable[[Step, Context], Awaitable[Answer]]

_HAS_TEXT = ("done", "kept")  # statuses of an answer that holds a caption


class ImageCaptions:
    """The captions of one image, while they are written and afterwards.

    Args:
        tree: of the image's regions.
        chosen: ids of the regions to caption, top-down, as `TreeSettings.chosen` gives them.
        look_alikes: region id -> ids of its look-alikes, most similar first; regions that are
            not chosen are left out.
        check: settings of stage 4.
        verify: run stage 5.
        describe_leaves: ask stage 3 about regions without captioned parts; else their long
            caption is the short one.

    Attributes:
        answers: the answer of each step so far.
        captions: region id -> caption after the last finished round.
        clashes: pairs of regions whose `captions` do not tell them apart.
    """

    def __init__(
        self,
        tree: MaskTree,
        chosen: Sequence[RegionId],
        look_alikes: Mapping[RegionId, Sequence[RegionId]],
        check: CheckSettings | None = None,
        verify: bool = False,
        describe_leaves: bool = True,
    ):
        self.tree, self.chosen, self.verify = tree, list(chosen), verify
        self.describe_leaves = describe_leaves
        self.check = check or CheckSettings()
        inside = set(self.chosen)
        self.look_alikes = {
            region_id: tuple(other for other in look_alikes.get(region_id, ()) if other in inside)
            for region_id in self.chosen
        }
        self.answers: dict[Step, Answer] = {}
        self.captions: dict[RegionId, str] = {}
        self.clashes: list[Pair] = []
        self.round = 1
        self._children = {
            parent: [child for child in tree.children(parent) if child in inside]
            for parent in (None, *self.chosen)
        }
        self._larger_siblings = {  # children come largest first
            child: family[:place]
            for family in self._children.values()
            for place, child in enumerate(family)
        }
        self._compared: dict[RegionId, tuple[RegionId, ...]] = {}  # shown in this round

    async def write(self, ask: Ask) -> list[FinalCaption]:
        """Write all captions.

        Args:
            ask: answers a step, given the captions that its prompt shows.

        Returns:
            The final state of each region of the tree, in file order.

        Raises:
            Exception: the first error that `ask` raises; the other questions are cancelled.
        """
        try:
            await self._first_captions(ask)
            self._close_round()
            while self.clashes and self.round < self.check.rounds:
                self.round += 1
                await self._refine(ask)
                self._close_round()
            if self.verify:
                steps = [Step("verify", 0, region_id) for region_id in self.captions]
                await _together(self._answer(ask, step) for step in steps)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._tasks: dict[Step, asyncio.Task[None]] = {}  # they would keep the image in memory
        return self.final_captions()

    async def _first_captions(self, ask: Ask) -> None:
        """Stages 2, 3 and the first round of 4: all captions at once, each waits for its own."""
        stages = (("short", 0, self._short), ("long", 0, self._long), ("unique", 1, self._unique))
        async with asyncio.TaskGroup() as group:
            self._tasks = {
                Step(stage, number, region_id): group.create_task(write(ask, region_id))
                for region_id in self.chosen
                for stage, number, write in stages
            }

    async def _short(self, ask: Ask, region_id: RegionId) -> None:
        """Stage 2 (Table 7), top-down: a caption that differs from those of the siblings."""
        parent = self.tree.parent(region_id)
        above = [] if parent is None else [parent]
        await self._written("short", above + self._larger_siblings[region_id])
        await self._answer(ask, Step("short", 0, region_id))

    async def _long(self, ask: Ask, region_id: RegionId) -> None:
        """Stage 3 (Table 8), bottom-up: a caption that gathers those of the children."""
        await self._written("short", [region_id])
        await self._written("long", self._children[region_id])
        short = self.answers[Step("short", 0, region_id)]
        keep = not self._children[region_id] and not self.describe_leaves
        await self._build_on(short, ask, Step("long", 0, region_id), keep)

    async def _unique(self, ask: Ask, region_id: RegionId) -> None:
        """Stage 4 (Table 9), first round: a caption that fits none of the look-alikes."""
        await self._written("long", [region_id, *self.look_alikes[region_id]])
        long, keep = self.answers[Step("long", 0, region_id)], not self.look_alikes[region_id]
        await self._build_on(long, ask, Step("unique", 1, region_id), keep)

    async def _build_on(self, before: Answer, ask: Ask, step: Step, keep: bool) -> None:
        """Ask a step unless the caption that it builds on failed, or serves as it is."""
        if before.status in _HAS_TEXT and keep:
            self.answers[step] = Answer(step, before.text, "kept", unique=before.unique)
        elif before.status in _HAS_TEXT:
            await self._answer(ask, step)
        else:
            blocked = before.status == "blocked"
            error = before.error if blocked else f"{before.step.stage}: {before.error}"
            self.answers[step] = Answer(step, "", "blocked", error)

    async def _refine(self, ask: Ask) -> None:
        """A further round of stage 4, for captions that still clash."""
        clashing = neighbors(self.clashes)
        for region_id, others in clashing.items():
            shown = dict.fromkeys([*others, *self.look_alikes[region_id]])
            self._compared[region_id] = tuple(shown)[: self.check.most]
        # regions that clash with one another take turns: asked at once, they would change to the
        # same new caption; sets of regions that do not clash go side by side
        chains = groups(self.clashes, self.chosen)
        await _together(self._in_turn(ask, chain) for chain in chains)

    async def _in_turn(self, ask: Ask, chain: Sequence[RegionId]) -> None:
        """Refine the regions of a chain; each sees the new captions of those before it."""
        captions = dict(self.captions)
        for region_id in chain:
            step = Step("unique", self.round, region_id)
            await self._answer(ask, step, captions)
            if self.answers[step].status == "done":
                captions[region_id] = self.answers[step].text

    def _close_round(self) -> None:
        """Take the captions of a round, and find those that clash."""
        for region_id in self.chosen:
            answer = self.answers.get(Step("unique", self.round, region_id))
            if answer is not None and answer.status in _HAS_TEXT:
                self.captions[region_id] = answer.text
        self.clashes = find_clashes(self.captions)

    async def _written(self, stage: Stage, region_ids: Iterable[RegionId]) -> None:
        """Wait for captions of stage 2 or 3."""
        for region_id in region_ids:
            await self._tasks[Step(stage, 0, region_id)]

    async def _answer(
        self, ask: Ask, step: Step, captions: Mapping[RegionId, str] | None = None
    ) -> None:
        self.answers[step] = await ask(step, self.context(step, captions))

    def context(self, step: Step, captions: Mapping[RegionId, str] | None = None) -> Context:
        """The captions that a step's prompt shows. Those that failed are left out.

        Args:
            step: the captions that it awaits are there.
            captions: of the regions that it is compared with, for stage 5 and the rounds of
                stage 4 after the first; `self.captions` if there are none.
        """
        region_id, stage = step.region_id, step.stage
        if stage == "short":
            parent = self.tree.parent(region_id)
            siblings = self._texts("short", self._larger_siblings[region_id])
            return Context(parent=self._texts("short", [parent]).get(parent), siblings=siblings)
        if stage == "long":
            current = self._texts("short", [region_id])[region_id]
            return Context(current=current, children=self._texts("long", self._children[region_id]))
        others = self.look_alikes[region_id]
        if stage == "unique" and step.round == 1:
            captions = self._texts("long", [region_id, *others])
        else:
            captions = self.captions if captions is None else captions
            others = self._compared[region_id] if stage == "unique" else others
        shown = {other: captions[other] for other in others if other in captions}
        return Context(current=captions[region_id], look_alikes=others, look_alike_captions=shown)

    def _texts(self, stage: Stage, region_ids: Iterable[RegionId | None]) -> dict[RegionId, str]:
        """Captions of stage 2 or 3 by region id, without those that failed."""
        answers = ((i, self.answers.get(Step(stage, 0, i))) for i in region_ids)
        return {i: answer.text for i, answer in answers if answer and answer.status in _HAS_TEXT}

    def final_captions(self) -> list[FinalCaption]:
        """The final state of each region of the tree, in file order."""
        clashing, same_mask = neighbors(self.clashes), defaultdict(list)
        for region_id in self.chosen:
            same_mask[self.tree[region_id].rle["counts"]].append(region_id)
        return [
            self._final(region.id, clashing.get(region.id, []), same_mask[region.rle["counts"]])
            for region in self.tree.regions
        ]

    def _final(
        self, region_id: RegionId, clashing: Sequence[RegionId], same_mask: Sequence[RegionId]
    ) -> FinalCaption:
        tree = self.tree
        place = (tree.parent(region_id), tree.depth(region_id), tree.height(region_id))
        if region_id not in self.look_alikes:
            reason = "not below a main object, or too small"
            return FinalCaption(region_id, "", "skipped", reason, None, 0, *place)
        rounds = (Step("unique", number, region_id) for number in range(1, self.round + 1))
        answers = [self.answers[step] for step in rounds if step in self.answers]
        written = [answer for answer in answers if answer.status in _HAS_TEXT]
        alike, last = self.look_alikes[region_id], answers[-1]
        if not written:
            return FinalCaption(region_id, "", "failed", last.error, None, 0, *place, alike)
        source = written[-1]
        twins = [other for other in same_mask if other != region_id]
        state, reason = self._state(source, last, clashing, twins)
        step = source.step
        while self.answers[step].status == "kept":
            step = Step("short" if step.stage == "long" else "long", 0, region_id)
        return FinalCaption(
            region_id, source.text, state, reason, step.stage, step.round, *place, alike
        )

    def _state(
        self, source: Answer, last: Answer, clashing: Sequence[RegionId], twins: Sequence[RegionId]
    ) -> tuple[State, str | None]:
        """The state of a region that has a caption, and the reason unless it is unique.

        Args:
            source: the answer that holds the caption.
            last: the latest answer of stage 4, which may have failed.
            clashing: ids of regions with a caption too similar.
            twins: ids of other regions with the same mask.
        """
        verified = self.answers.get(Step("verify", 0, source.step.region_id))
        if verified is not None and verified.status != "done":
            return "failed", f"verify: {verified.error}"
        keep, why = (True, None) if verified is None else parse_verdict(verified.text)
        if not keep:
            return "dropped", why
        if twins:  # no caption can fit one of them alone
            return "unresolved", f"has the same mask as {', '.join(map(str, twins))}"
        if clashing:
            failed = f"; asked again: {last.error}" if last.status == "failed" else ""
            return "unresolved", f"reads like {', '.join(map(str, clashing))}{failed}"
        if source.unique is False:
            return "unresolved", "fits another region too, says the annotator"
        return "unique", None


def parse_verdict(text: str) -> tuple[bool, str | None]:
    """Read a reply of stage 5: "keep", or "drop" and the reason (Sec. 3, evaluation set).

    Returns:
        Whether the caption stays in the test set, and if not, the reason if one is given.

    Raises:
        ValueError: the reply starts with neither word.
    """
    found = re.match(r"\W*(keep|drop)\b\W*(.*)", text.strip(), re.IGNORECASE | re.DOTALL)
    if found is None:
        raise ValueError(f"a verification reply starts with keep or drop, not {text[:80]!r}")
    reason = found.group(2).strip() or None
    return found.group(1).lower() == "keep", reason


def neighbors(pairs: Iterable[Pair]) -> dict[RegionId, list[RegionId]]:
    """Region id -> ids of the regions that it is paired with, in the order of the pairs."""
    found = defaultdict(list)
    for one, other in pairs:
        found[one].append(other)
        found[other].append(one)
    return found


async def _together(coroutines: Iterable[Awaitable[None]]) -> None:
    """Run coroutines at once; the first error cancels the others."""
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)
