"""Saved figures: the same bytes each time, no dates, the width that was asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from ureca_lib.figures import save_figure


@pytest.fixture
def figure():
    figure, ax = plt.subplots(figsize=(3.3, 2))
    ax.imshow(np.random.default_rng(0).random((20, 20)))
    ax.set_title("a title")
    yield figure
    plt.close(figure)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_same_figure_has_the_same_bytes(figure, tmp_path, suffix):
    first = save_figure(figure, tmp_path / f"a{suffix}").read_bytes()
    again = save_figure(figure, tmp_path / f"b{suffix}").read_bytes()
    assert first == again
    assert not re.search(rb"CreationDate|<dc:date>|Matplotlib v|matplotlib version", first, re.I)


def test_untrimmed_figures_have_the_width_of_the_column(figure, tmp_path):
    path = save_figure(figure, tmp_path / "a.png", dpi=100, trim=False)
    assert Image.open(path).size == (330, 200)
    box = re.search(rb"/MediaBox \[([^\]]+)\]", path.with_suffix(".pdf").read_bytes())
    assert [float(n) for n in box[1].split()] == pytest.approx([0, 0, 3.3 * 72, 144], abs=0.5)


def test_text_of_a_pdf_is_letters_and_not_shapes(figure, tmp_path):
    content = save_figure(figure, tmp_path / "a.pdf").read_bytes()
    assert b"/Type /Font" in content and b"/FontFile2" in content  # TrueType, which prints well
    assert b"/Type3" not in content


def test_another_suffix_is_refused_by_name(figure, tmp_path):
    with pytest.raises(ValueError, match=r"a\.bmp.*\.png, \.pdf, \.svg"):
        save_figure(figure, tmp_path / "a.bmp")
