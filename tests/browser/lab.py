"""JupyterLab on a copy of the notebooks, and the browser that opens it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

TOKEN = "browser-test"
START, RUN = 180, 1200  # seconds at most for the server, and for a notebook
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Path of the browser: `URECA_CHROMIUM`, else the first that is installed."""
    named = os.environ.get("URECA_CHROMIUM")
    return named or next(filter(None, map(shutil.which, CHROMIUM)), None)


def copy_project(root: Path, folder: Path) -> Path:
    """Copy the notebooks and link their data in a folder that they may write to."""
    shutil.copytree(root / "notebooks", folder / "notebooks")
    (folder / "papermill_runs").mkdir()
    (folder / "data_samples").symlink_to(root / "data_samples")
    return folder


@contextmanager
def serve(folder: Path, scratch: Path) -> Iterator[str]:
    """Start JupyterLab on a folder, with its own settings; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    _settle(scratch / "CONFIG")
    own = {f"JUPYTER_{name}_DIR": str(scratch / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    log = scratch / "jupyterlab.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env=os.environ | own, stdout=file, stderr=file, cwd=folder
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, server, log)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _settle(config: Path) -> None:
    """Turn off news and updates, which need a network, and put all cells on the page at once."""
    settings = {
        "apputils-extension/notification": {
            "fetchNews": "false",
            "checkForUpdates": False,
            "doNotDisturbMode": True,
        },
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in settings.items():
        path = config / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook and wait for its cells and its kernel."""
    page.goto(f"{address}/lab/tree/notebooks/{name}?token={TOKEN}&reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=START * 1000)
    page.get_by_text(re.compile(r"^Python 3.*\| Idle$")).wait_for(timeout=START * 1000)


def run_all(page: Page) -> None:
    """Run all cells by the menu, as a person does."""
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
