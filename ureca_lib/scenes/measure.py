"""Measure the scenes of a specification and write SPECIFICATION.md.

python -m ureca_lib.scenes.measure
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ureca_lib.journal import write_text
from ureca_lib.scenes.generate import generate_scene
from ureca_lib.scenes.kinds import KINDS
from ureca_lib.scenes.lexicon import vocabulary
from ureca_lib.scenes.parsing import parse
from ureca_lib.scenes.scene import Scene
from ureca_lib.scenes.specification import SceneSpecification
from ureca_lib.scenes.writing import STYLES

TARGET = Path(__file__).with_name("SPECIFICATION.md")
FIFTH = 112  # side of the mask input that a canvas of 560 is five times as wide as
GRID = (336, 224)  # the same canvas as 3 x 2 tiles of 112
AREAS = (12, 32, 64, 128, 256, 1024, 4096, 16384, 65536, 10**9)  # pixels
QUALIFIERS = ("surface", "pattern", "side", "place", "row", "whole")

HEAD = """# The scenes: specification {version}

Frozen: data sets, models and figures name the version. What changes pixels, masks or captions of
a seed changes the version, and everything below is measured again by

    {command}

over the first {count:,} seeds of the training split (novelty: and the first {tests} of the test
split). The settings are `SceneSpecification`'s defaults.
"""
RULES = """## What always holds

- A region is what is seen of a part: a pixel belongs to the foremost shape at its sample, to that
  shape's part, and to all wholes of that part. Edges in the picture are smoothed, masks are not.
- A region is smaller than its parent and inside it, and apart from all others. So the true tree
  is the one that `build_mask_tree` finds, by either parent rule.
- Parts that are too small or too hidden are left out with all of their parts; a part that covers
  its whole is left out, and its parts become the whole's. Objects that are too hidden are not in
  the picture at all. What still shows of a part that was left out is no region, and `resolve`
  does not know of it: a minimal caption may be true of such a remnant too.
- No two objects of one kind and surface have one place, those of one pair or row aside. So every
  caption of every style fits its region alone, and `resolve` shows it.
- Places are of the middle of an object's outline, hidden parts included, in thirds of the canvas
  with gaps of a tenth between them. Left and right are the viewer's.
- `palette` and `patterns` restrict whole objects; parts and backdrops choose from fixed colours.
- `mention` and `surface` are of what a part is drawn in by itself: the light may tint it.
"""


def entropy(things: Iterable[str]) -> float:
    """Entropy, in bits, of the distribution of the items."""
    counts = np.array(list(Counter(things).values()), np.float64)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def pixels_left(scene: Scene, size: tuple[int, int]) -> list[int]:
    """Pixels of each region when the canvas is resized by nearest neighbor.

    Args:
        scene: of any canvas.
        size: (width, height) after resizing.
    """
    return [
        int(np.asarray(Image.fromarray(region.mask).resize(size, Image.NEAREST)).sum())
        for region in scene.regions
    ]


def rows_of(title: str, values: dict[str, str]) -> str:
    """A Markdown section with a table of two columns."""
    lines = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *lines]) + "\n"


def _share(count: float, total: float) -> str:
    return f"{100 * count / total:.1f}%"


def _counts(scenes: Sequence[Scene]) -> str:
    regions = np.array([len(scene.regions) for scene in scenes])
    depths = Counter(scene.tree.height() for scene in scenes)
    levels = Counter(scene.tree.depth(each.id) for scene in scenes for each in scene.regions)
    objects, same, groups = [], 0, 0
    for scene in scenes:
        whole = [facts for facts in scene.description.facts if facts.kind in KINDS]
        objects.append(len(whole))
        looks = Counter((facts.kind, facts.surface, facts.pattern) for facts in whole)
        same += max(looks.values()) > 1
        groups += any(facts.member for facts in scene.description.facts)
    low, middle, high = np.percentile(regions, (5, 50, 95))
    levels_said = {level: _share(n, regions.sum()) for level, n in sorted(levels.items())}
    depths_said = {depth: _share(n, len(scenes)) for depth, n in sorted(depths.items())}
    return rows_of(
        "Regions",
        {
            "regions a scene: mean, least, most": f"{regions.mean():.1f}, {regions.min()}, "
            f"{regions.max()} (5%, 50%, 95%: {low:.0f}, {middle:.0f}, {high:.0f})",
            "regions by level": _joined(levels_said),
            "scenes by levels of the tree": _joined(depths_said),
            "whole objects a scene: mean, least": f"{np.mean(objects):.1f}, {min(objects)}",
            "scenes with two objects of one kind, surface and pattern": _share(same, len(scenes)),
            "scenes with a pair or row": _share(groups, len(scenes)),
            "kinds of object, of region": f"{len(KINDS)}, {len(_kinds(scenes))}",
        },
    )


def _joined(said: dict) -> str:
    return ", ".join(f"{name}: {value}" for name, value in said.items())


def _kinds(scenes: Sequence[Scene]) -> Counter:
    return Counter(region.name for scene in scenes for region in scene.regions)


def _sizes(scenes: Sequence[Scene]) -> str:
    areas = np.array([region.area for scene in scenes for region in scene.regions])
    small = np.concatenate([pixels_left(scene, (FIFTH, FIFTH)) for scene in tqdm(scenes)])
    tiled = np.concatenate([_tiled(scene) for scene in tqdm(scenes)])
    total = len(areas)
    said = {}
    for low, high in pairwise(AREAS):
        name = f"{low} px and more" if high == AREAS[-1] else f"{low} to {high - 1} px"
        said[name] = _share(((areas >= low) & (areas < high)).sum(), total)
    fifth = f"resized to {FIFTH} x {FIFTH}"
    for most in (0, 1, 2, 4):
        said[f"{fifth}: at most {most} px left"] = _share((small <= most).sum(), total)
    nearly = tiled[small <= 2]
    said["of those with at most 2: median, least px left in 6 tiles of 112"] = (
        f"{np.median(nearly):.0f}, {nearly.min()}"
    )
    return rows_of("Sizes of regions", said)


def _tiled(scene: Scene) -> list[int]:
    wide, high = GRID
    return pixels_left(scene, (wide, high) if scene.width >= scene.height else (high, wide))


def _captions(scenes: Sequence[Scene], tests: Sequence[Scene]) -> str:
    said: dict[str, str] = {}
    known = set(vocabulary())
    said["words and marks of the language"] = str(len(known))
    for style in STYLES:
        texts = [text for scene in scenes for text in scene.captions_in(style).values()]
        tokens = [token for text in texts for token in split(text)]
        lengths = [len(split(text)) for text in texts]
        new = [text for scene in tests for text in scene.captions_in(style).values()]
        seen = set(texts)
        fresh = sum(text not in seen for text in new)
        said[f"{style}: words, mean and most"] = f"{np.mean(lengths):.1f}, {max(lengths)}"
        said[f"{style}: different captions"] = f"{len(seen):,} of {len(texts):,}"
        said[f"{style}: entropy of a caption, of a word"] = (
            f"{entropy(texts):.2f} of at most {math.log2(len(texts)):.2f} bits, "
            f"{entropy(tokens):.2f} bits"
        )
        said[f"{style}: words used"] = str(len(set(tokens)))
        said[f"{style}: test captions not seen in training"] = _share(fresh, len(new))
    for style in ("phrase", "minimal"):
        phrases = [parse(text) for scene in scenes for text in scene.captions_in(style).values()]
        shares = {
            name: _share(sum(bool(getattr(phrase, name)) for phrase in phrases), len(phrases))
            for name in QUALIFIERS
        }
        said[f"{style}: captions that say of the region its"] = _joined(shares)
    return rows_of("Captions", said)


def split(caption: str) -> list[str]:
    """A caption's words and marks, in lower case; all are in `vocabulary()`."""
    return caption.lower().replace(",", " ,").replace(".", " .").split()


def report(spec: SceneSpecification, count: int, tests: int, command: str) -> str:
    """Generate scenes and describe them in Markdown.

    Args:
        spec: what to measure.
        count, tests: scenes of the training and of the test split.
        command: the command line, for the report.
    """
    scenes = [generate_scene(seed, spec) for seed in tqdm(spec.seeds("train", count))]
    new = [generate_scene(seed, spec) for seed in tqdm(spec.seeds("test", tests))]
    meaning = spec.help()
    settings = {
        f"`{each.name}`: {meaning[each.name]}": str(getattr(spec, each.name))
        for each in fields(spec)
    }
    kinds = _kinds(scenes)
    objects = {name: f"{kinds[name] / len(scenes):.2f}" for name in KINDS}
    parts = [
        HEAD.format(version=spec.version, command=command, count=count, tests=tests),
        rows_of("Settings", settings),
        RULES,
        _counts(scenes),
        rows_of("Objects of each kind a scene", objects),
        _sizes(scenes),
        _captions(scenes, new),
    ]
    return "\n".join(parts)


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="training scenes")
    parser.add_argument("--tests", type=int, default=200, help="test scenes")
    parser.add_argument("--out", type=Path, default=TARGET, help="the Markdown file")
    given = parser.parse_args()
    command = "python -m ureca_lib.scenes.measure"
    if (given.count, given.tests) != (1000, 200):
        command += f" --count {given.count} --tests {given.tests}"
    text = report(SceneSpecification(), given.count, given.tests, command)
    write_text(given.out, text)


if __name__ == "__main__":
    main()
