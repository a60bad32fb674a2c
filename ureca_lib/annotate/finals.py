"""Where each region of an image ends: its caption, whether it is told apart, and why not."""

from __future__ import annotations

from collections.abc import Sequence

from ureca_lib.annotate.records import Answer, FinalCaption, State, Step
from ureca_lib.annotate.stages import ImagePlan, neighbors
from ureca_lib.annotate.verify import parse_verdict
from ureca_lib.mask_tree import RegionId


def final_captions(plan: ImagePlan) -> list[FinalCaption]:
    """The outcome of a finished plan, one a region, in file order."""
    clashing = neighbors(plan.clashes)
    same_mask: dict[bytes, list[RegionId]] = {}
    for region_id in plan.chosen:
        same_mask.setdefault(plan.tree[region_id].rle["counts"], []).append(region_id)
    found = []
    for region in plan.tree.regions:
        twins = same_mask.get(region.rle["counts"], [])
        twins = [other for other in twins if other != region.id]
        found.append(_final(plan, region.id, clashing.get(region.id, []), twins))
    return found


def _final(
    plan: ImagePlan,
    region_id: RegionId,
    clashing: Sequence[RegionId],
    twins: Sequence[RegionId],
) -> FinalCaption:
    tree = plan.tree
    place = (tree.parent(region_id), tree.depth(region_id), tree.height(region_id))
    if region_id not in plan.look_alikes:
        reason = "not below a main object, or too small"
        return FinalCaption(region_id, "", "skipped", reason, None, 0, *place)
    steps = (Step("unique", number, region_id) for number in range(1, plan.round + 1))
    asked = [plan.answers[step] for step in steps if step in plan.answers]
    good = [answer for answer in asked if answer.status in ("done", "kept")]
    alike = plan.look_alikes[region_id]
    if not good:
        return FinalCaption(region_id, "", "failed", asked[-1].error, None, 0, *place, alike)
    source = good[-1]
    verdict = plan.answers.get(Step("verify", 0, region_id))
    state, reason = _state(source, asked[-1], verdict, clashing, twins)
    step = Step("long", 0, region_id) if source.status == "kept" else source.step
    return FinalCaption(
        region_id, source.text, state, reason, step.stage, step.round, *place, alike
    )


def _state(
    source: Answer,
    last: Answer,
    verdict: Answer | None,
    clashing: Sequence[RegionId],
    twins: Sequence[RegionId],
) -> tuple[State, str | None]:
    if verdict is not None and verdict.status != "done":
        return "failed", f"verify: {verdict.error}"
    if verdict is not None:
        keep, reason = parse_verdict(verdict.text)
        if not keep:
            return "dropped", reason
    if twins:  # whatever the caption says, it fits them too
        return "unresolved", f"has the same mask as {', '.join(map(str, twins))}"
    if clashing:
        failed = f"; asked again: {last.error}" if last.status == "failed" else ""
        return "unresolved", f"reads like {', '.join(map(str, clashing))}{failed}"
    if source.unique is False:
        return "unresolved", "fits another region too, says the annotator"
    return "unique", None
