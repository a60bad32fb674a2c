"""The drawing of a tree."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mask_tree.nested import regions_of
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from ureca_lib.figures.trees import plot_tree
from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import Region


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def drawn(tree: MaskTree) -> Axes:
    """A tree on axes of its own."""
    _, ax = plt.subplots()
    plot_tree(tree, ax)
    return ax


def squares(count: int) -> list[np.ndarray]:
    return [np.arange(400).reshape(20, 20) <= i % 400 for i in range(count)]


def test_every_region_has_its_label_at_its_level():
    names = ["house", None, "roof", "größe", "$x^2$"]
    regions = [Region.from_mask(i, m, names[i]) for i, m in enumerate(squares(5))]
    tree = MaskTree(regions, {0: None, 1: 0, 2: 0, 3: 2, 4: None})
    ax = drawn(tree)
    levels = {text.get_text(): text.xy[0] for text in ax.texts}
    assert levels == {
        "image": 0,
        "house [0]": 1,
        "[1]": 2,
        "roof [2]": 2,
        "größe [3]": 3,
        r"\$x^2\$ [4]": 1,
    }
    rows = [text.xy[1] for text in ax.texts]
    assert sorted(rows) == list(range(6))  # none on another
    ax.figure.canvas.draw()


def test_each_region_is_joined_to_its_parent():
    regions = regions_of(squares(4))
    tree = MaskTree(regions, {97: None, 90: 97, 83: 97, 76: 83})
    ax = drawn(tree)
    at = {text.get_text(): text.xy for text in ax.texts}
    joints = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 3]
    found = {(tuple(joint[0]), tuple(joint[-1])) for joint in joints}
    above = {"[97]": "image", "[90]": "[97]", "[83]": "[97]", "[76]": "[83]"}
    assert found == {(at[parent], at[child]) for child, parent in above.items()}


def test_no_region_is_an_image_alone():
    assert [text.get_text() for text in drawn(build_mask_tree([])).texts] == ["image"]


@pytest.mark.parametrize("shape", ["flat", "chain"])
def test_600_masks_can_be_drawn(shape):
    regions = [Region.from_mask(i, mask) for i, mask in enumerate(squares(600))]
    above = {i: None if shape == "flat" or i == 0 else i - 1 for i in range(600)}
    ax = drawn(MaskTree(regions, above))
    assert {text.get_text() for text in ax.texts} == {"image", *(f"[{i}]" for i in range(600))}
    ax.figure.savefig(io.BytesIO(), format="png", dpi=10)
