"""What the panel shows, as plain data; the browser writes it into text nodes."""

from __future__ import annotations

from typing import Any

from ureca_lib.explorer.captions import Entry, Judgement, Rival
from ureca_lib.explorer.cursor import TreeCursor
from ureca_lib.explorer.exploration import Exploration
from ureca_lib.explorer.review import ReviewSession
from ureca_lib.mask_tree import RegionId

View = dict[str, Any]


def view_of(state: Exploration, note: str = "", busy: bool = False, error: bool = False) -> View:
    """The panel's content; regions are named by their place in `state.order`.

    Args:
        state: what is looked at.
        note: a line for the person: what is being computed, or what went wrong.
        busy: whether something is still being computed.
        error: whether the note is of something that went wrong.
    """
    cursor, tree, book, session = state.cursor, state.tree, state.book, state.session
    region_id, judgement = cursor.region_id, state.judged(cursor.region_id)
    places = {one: place for place, one in enumerate(state.order)}
    crumbs = [{"label": "image", "place": None}]
    crumbs += [{"label": cursor.label(one), "place": places[one]} for one in cursor.path()]
    entry = None if region_id is None else book.known(region_id)
    return {
        "selected": None if region_id is None else places[region_id],
        "crumbs": crumbs,
        "children": [places[one] for one in tree.children(region_id)],
        "title": cursor.label(region_id),
        "facts": _facts(cursor),
        "drawn": state.is_drawn(region_id),
        "caption": entry.text if entry else None,
        "score": None if entry is None or entry.score is None else f"{entry.score:.2f}",
        "state": entry.state if entry else "",
        "verdict": verdict(entry, judgement),
        "rivals": [_rival(one, places, state) for one in judgement.rivals] if judgement else [],
        "own": judgement.probability if judgement else None,
        "canDraw": book.can_caption,
        "canReview": state.can_review,
        "review": None if session is None else _review(session, cursor),
        "note": note,
        "busy": busy,
        "error": error,
    }


def verdict(entry: Entry | None, judgement: Judgement | None) -> dict[str, str]:
    """Whether the caption is unique, as a kind ("good", "bad" or "") and a sentence."""
    if entry is None or judgement is None or not entry.text:
        return {"kind": "", "text": ""}
    if judgement.same:
        several = f"{judgement.same} other regions have"
        others = "another region has" if judgement.same == 1 else several
        return {"kind": "bad", "text": f"Not unique: {others} the same caption"}
    chance = judgement.probability
    if chance is not None:
        if not judgement.unique:
            return {"kind": "bad", "text": "Not unique: a listener rather picks another region"}
        return {"kind": "good", "text": f"Unique: a listener picks it with {100 * chance:.0f}%"}
    if entry.unique is False:
        return {"kind": "bad", "text": "Not unique, says its writer"}
    if not judgement.unique:
        return {"kind": "bad", "text": "Nearly the same as a look-alike's caption"}
    told = "fits no other region" if entry.unique else "no other region's caption reads the same"
    return {"kind": "good", "text": f"Unique: {told}"}


def _facts(cursor: TreeCursor) -> str:
    tree, region_id = cursor.tree, cursor.region_id
    if region_id is None:
        return f"{len(tree)} regions on {tree.height()} levels"
    region = tree[region_id]
    share = 100 * region.area / (region.size[0] * region.size[1])
    parts = len(tree.children(region_id))
    said = f"{share:.2g}" if share < 10 else f"{share:.0f}"
    level = f"level {tree.depth(region_id)} of {tree.height()}"
    return f"{said}% of the image · {level} · {parts or 'no'} part{'s' if parts != 1 else ''}"


def _rival(rival: Rival, places: dict[RegionId, int], state: Exploration) -> dict[str, Any]:
    entry = state.book.known(rival.region_id)
    return {
        "place": places[rival.region_id],
        "label": state.cursor.label(rival.region_id),
        "caption": entry.text if entry else "",
        "probability": rival.probability,
        "relation": _relation(rival.region_id, state),
        "clash": rival.clash,
    }


def _relation(other: RegionId, state: Exploration) -> str:
    if other in state.tree.ancestors(state.region_id):
        return "it is part of this"
    return "its part" if state.region_id in state.tree.ancestors(other) else ""


def _review(session: ReviewSession, cursor: TreeCursor) -> dict[str, Any]:
    decision = session.decisions.get(cursor.region_id) if cursor.region_id is not None else None
    return {
        "reviewer": session.reviewer,
        "place": session.place + 1,
        "total": len(session.queue),
        "decided": session.decided,
        "open": session.region_id == cursor.region_id and session.region_id is not None,
        "decision": "" if decision is None else decision.decision,
        "note": "" if decision is None else decision.note,
    }
