"""JupyterLab in Chromium: the explorer's notebook is clicked through, the quickstart is run."""

from __future__ import annotations

import time

import pytest
from browser.lab import RUN, copy_project, open_notebook, run_all, serve

from ureca_lib.annotate.store import Store
from ureca_lib.figures import deepest_point
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import load_sa1b
from ureca_lib.runs import notebook_parameters

pytestmark = pytest.mark.browser
EDIT = 'the <b>whole</b> cat & "nothing" else'


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    return copy_project(root, tmp_path_factory.mktemp("lab") / "project")


@pytest.fixture(scope="module")
def address(project, browser):
    """JupyterLab on the project; the browser comes first, so that nothing starts without it."""
    with serve(project, project.parent) as found:
        yield found


def click_region(page, explorer, region) -> None:
    """Click well inside a region, in the current layout of the picture."""
    explorer.locator(".ue-picture").scroll_into_view_if_needed()
    row, column = deepest_point(region.mask)
    height, width = region.size
    box = explorer.locator(".ue-picture").bounding_box()
    x = box["x"] + box["width"] * (column + 0.5) / width
    page.mouse.click(x, box["y"] + box["height"] * (row + 0.5) / height)


def run_through(page) -> None:
    """Run all cells and wait for the last; if they stop before it, fail with the reason."""
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt")
    run_all(page)
    deadline = time.monotonic() + RUN
    while True:
        states = [one.strip("[]: ") for one in prompts.all_text_contents()]
        if states and all(state.isdigit() for state in states):
            break
        begun, running = any(map(str.isdigit, states)), "*" in states
        late = time.monotonic() > deadline
        assert not late and (running or not begun), f"cells: {states}; {complaints(page)}"
        page.wait_for_timeout(500)
    failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    assert failed.count() == 0, complaints(page)


def complaints(page) -> list[str]:
    """Errors that the page shows."""
    places = (
        ".jp-Dialog-content, [data-mime-type*='jupyter.std'], [data-mime-type*='jupyter.error']"
    )
    return [text[-1500:] for text in page.locator(places).all_text_contents()]


def test_a_region_is_clicked_and_a_caption_edited_in_review(page, address, project):
    open_notebook(page, address, "12_explore.ipynb")
    run_through(page)
    explorers = page.locator(".ureca-explorer")
    explorers.nth(1).wait_for()
    name = notebook_parameters(project / "notebooks" / "12_explore.ipynb")["photo"].default
    photo = load_sa1b((project / "notebooks" / name).with_suffix(".json"))
    part = next(region for region in photo if build_mask_tree(photo).depth(region.id) == 2)
    first = explorers.first
    click_region(page, first, part)
    title = first.locator(".ue-title", has_text=f"{part.name} [{part.id}]")
    title.wait_for()
    first.locator(".ue-caption:not(.ue-empty)", has_text=part.name).wait_for()
    first.locator(".ue-verdict", has_text="nique").wait_for()
    page.keyboard.press("ArrowUp")  # would move to another cell if JupyterLab saw it
    title.wait_for(state="detached")

    review = explorers.nth(1)
    review.get_by_role("button", name="Review").click()
    review.locator(".ue-progress", has_text="0 decided").wait_for()
    before = review.locator(".ue-text").input_value()
    review.locator(".ue-text").fill(EDIT)
    review.get_by_role("button", name="Save edit").click()
    review.locator(".ue-progress", has_text="1 decided").wait_for()

    with Store(project / "papermill_runs" / "latest" / "review.sqlite", create=False) as store:
        (saved,) = store.reviews(store.images()[0].image)
    assert (saved.decision, saved.text, saved.previous) == ("edit", EDIT, before)
    assert saved.reviewer and saved.time > time.time() - 600
    review.get_by_role("button", name="‹ Back").click()
    review.locator(".ue-decision", has_text="you wrote this").wait_for()
    assert review.locator(".ue-text").input_value() == EDIT
    assert page.locator(".jp-CodeCell").count() == 11  # no shortcut has added or taken away a cell


def test_the_quickstart_runs_from_top_to_bottom(page, address, project):
    open_notebook(page, address, "00_quickstart.ipynb")
    run_through(page)
    folder = project / "papermill_runs" / "latest" / "00_quickstart"
    assert (folder / "metrics.json").is_file()  # the last cell writes it
    assert (folder / "captions.jsonl").read_text().count("\n") > 30
    assert (folder / "captions.png").is_file()
