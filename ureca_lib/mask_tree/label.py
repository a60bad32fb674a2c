"""What a region is called where a tree is printed or drawn."""

from __future__ import annotations

from ureca_lib.regions import Region

_LONGEST = 40  # characters of a name that are shown


def region_label(region: Region) -> str:
    """`name [id]` on one line, or `[id]`; a long name is cut."""
    name = " ".join((region.name or "").split())
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 1] + "…"
    return f"{name} [{region.id}]".lstrip()
