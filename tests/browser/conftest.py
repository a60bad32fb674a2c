"""A headless Chromium, if one is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from browser.lab import FLAGS, START, find_chromium

REQUIRED = "URECA_BROWSER"  # set to "required", a missing browser fails instead of skipping


def _give_up(reason: str) -> None:
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{reason}, and {REQUIRED}=required")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """One Chromium for a file of tests; skips, saying why, if there is none.

    While playwright is open its event loop runs in this thread, and no other test can start one.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        _give_up("playwright is not installed: pip install playwright")
    path = find_chromium()
    if path is None:
        _give_up("no Chromium: apt-get install chromium, or set URECA_CHROMIUM to its path")
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(
                executable_path=path, args=list(FLAGS), timeout=START * 1000
            )
        except Error as error:
            _give_up(f"{path} does not start: {error}")
        yield opened
        opened.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page whose errors fail the test."""
    opened = browser.new_page(viewport={"width": 1400, "height": 950})
    opened.set_default_timeout(START * 1000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []
