"""Facts about a scene's regions as symbols, from which captions are written and checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Facts about one region.

    Args:
        id: the region's.
        kind: the noun.
        parent: id of the region it is a part of, None for the image.
        surface, pattern: its looks; a group has no surface.
        mention: whether short captions say the surface.
        side: position among the parts of its kind in its parent, such as ("left",) or
            ("top", "left").
        place: "left", "middle" or "right" in the image; None for a part.
        row: "front" or "back" if it stands on the ground.
        member: kind of the members of a pair or row.
    """

    id: int
    kind: str
    parent: int | None
    surface: str | None
    pattern: str = "plain"
    mention: bool = False
    side: tuple[str, ...] = ()
    place: str | None = None
    row: str | None = None
    member: str | None = None


class Description:
    """Facts about all regions of a scene, indexed by id and by kind.

    Raises:
        ValueError: two regions with one id, an unknown parent, or a parent after its child.
    """

    def __init__(self, facts: Iterable[Facts]):
        self.facts = tuple(facts)
        self.by_kind: dict[str, list[Facts]] = defaultdict(list)
        self._by_id: dict[int, Facts] = {}
        self._ancestors: dict[int, tuple[int, ...]] = {}
        self._children: dict[int | None, list[Facts]] = defaultdict(list)
        for each in self.facts:
            if each.id in self._by_id:
                raise ValueError(f"two regions have the id {each.id}")
            if each.parent is not None and each.parent not in self._by_id:
                raise ValueError(f"region {each.id} has the parent {each.parent}, not before it")
            up = () if each.parent is None else (each.parent, *self._ancestors[each.parent])
            self._by_id[each.id], self._ancestors[each.id] = each, up
            self._children[each.parent].append(each)
            self.by_kind[each.kind].append(each)

    def __getitem__(self, region_id: int) -> Facts:
        return self._by_id[region_id]

    def __len__(self) -> int:
        return len(self.facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Description) and self.facts == other.facts

    __hash__ = None  # type: ignore[assignment]

    def ancestors(self, region_id: int) -> tuple[int, ...]:
        """Ids from the parent upwards."""
        return self._ancestors[region_id]

    def children(self, region_id: int | None) -> Sequence[Facts]:
        """Facts of the parts of a region; without a region, of everything that has no parent."""
        return self._children.get(region_id, ())

    def standing(self, region_id: int) -> Facts | None:
        """The nearest region with a place: itself or an ancestor; None if there is none."""
        chain = (region_id, *self._ancestors[region_id])
        return next((self._by_id[each] for each in chain if self._by_id[each].place), None)

    def to_list(self) -> list[dict[str, Any]]:
        """The facts as JSON-compatible data, without empty fields."""
        rows = []
        for each in self.facts:
            row = {name: getattr(each, name) for name in ("id", "kind", "parent", "surface")}
            row |= {"pattern": each.pattern, "mention": each.mention, "side": list(each.side)}
            optional = {name: getattr(each, name) for name in ("place", "row", "member")}
            rows.append(row | {name: value for name, value in optional.items() if value})
        return rows

    @classmethod
    def from_list(cls, rows: Iterable[Mapping[str, Any]]) -> Description:
        """Inverse of `to_list`.

        Raises:
            ValueError: names the malformed row.
        """
        facts = []
        for number, row in enumerate(rows):
            try:
                facts.append(Facts(**{**row, "side": tuple(row.get("side", ()))}))
            except (TypeError, AttributeError) as error:
                raise ValueError(f"row {number} of the description: {error}") from None
        return cls(facts)
