"""One lab and one browser for all tests of this folder.

They end with its last test, not with the session: while Playwright runs, Django takes this process for
asynchronous and refuses every query.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.throwaway import ADDRESSES, PROJECT

ADDRESS = re.compile(r"http://localhost:\d+/lab\S*\?token=\w+")
CHROMIUM = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab. ``address`` is the one it printed, ``folder`` the project it serves."""

    address: str
    folder: Path


@pytest.fixture(scope="package")
def project() -> Iterator[Path]:
    """A copy of the project without what git ignores, at a path that careless quoting would break."""
    parent = Path(tempfile.mkdtemp(prefix="workbench-browser-"))
    parent.chmod(0o755)  # The embedded server runs as nobody, if we are root.
    copy = parent / "data café"
    names = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(names, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, copy / name)
    yield copy
    shutil.rmtree(parent)


@pytest.fixture(scope="package")
def lab(project: Path) -> Iterator[Lab]:
    """What ``make lab`` starts, for somebody new to Jupyter. Asserts that it leaves nothing running."""
    jupyter = project / ".workbench" / "jupyter"
    # The kernelspec is written beside this one: here, not into the environment that others use.
    kernel = Path("kernels", "python3")
    shutil.copytree(Path(sys.prefix, "share", "jupyter", kernel), jupyter / kernel)
    ours = {
        "IPYTHONDIR": str(jupyter / "ipython"),
        "JUPYTER_CONFIG_DIR": str(jupyter / "config"),
        "JUPYTER_DATA_DIR": str(jupyter / "data"),
        "JUPYTER_PATH": str(jupyter),
        "WORKBENCH_ENV_FILE": os.devnull,
        "WORKBENCH_HOME": str(project / ".workbench"),
    }
    with serving(["manage.py", "shell_plus", "--lab", "--", "--port=0"], project, ours, ADDRESS) as served:
        yield served
    left = psutil.wait_procs(_processes_of(project), timeout=20)[1]
    assert not left, f"still running after the lab: {[process.cmdline() for process in left]}"


@contextmanager
def serving(
    arguments: list[str], project: Path, ours: dict[str, str], pattern: re.Pattern[str]
) -> Iterator[Lab]:
    """Run a server of notebooks in the project, in an environment of its own, at the address it prints."""
    theirs = {"DISPLAY", "WAYLAND_DISPLAY", "DJANGO_SETTINGS_MODULE", *ADDRESSES}
    log = Path(ours["WORKBENCH_HOME"], "server.log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project,
            env={name: value for name, value in os.environ.items() if name not in theirs} | ours,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Lab(_address(server, log, pattern), project)
    finally:
        server.terminate()
        server.wait(60)


def _address(server: subprocess.Popen[bytes], log: Path, pattern: re.Pattern[str]) -> str:
    """Return the address that a server prints."""
    while server.poll() is None:
        if printed := pattern.search(log.read_text(encoding="utf-8")):
            return printed.group()
        time.sleep(0.1)
    raise AssertionError(f"The server printed no address: {log.read_text(encoding='utf-8')}")


def _processes_of(project: Path) -> list[psutil.Process]:
    """Return the processes that work in the project or on its data."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if any(str(project) in word for word in words):
            found.append(process)
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that was never in the lab."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()
