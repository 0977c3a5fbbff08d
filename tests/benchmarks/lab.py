"""``make lab`` beside a bare ``jupyter lab``, and our kernel beside a bare one that sets Django up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from jupyter_client.manager import start_new_kernel

from tests.benchmarks.server import Server
from tests.throwaway import PROJECT, environment

ADDRESS = re.compile(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*")
SECONDS = 60.0
SET_UP = "import os; os.environ['DJANGO_ALLOW_ASYNC_UNSAFE'] = '1'; import django; django.setup()"
ASK = "Author.objects.count()"
# What each kernel is asked first, of which the answer is waited for.
FIRST = {
    ("lab-kernel", "workbench"): "None",
    ("lab-kernel", "python3"): SET_UP,
    ("lab-query", "workbench"): ASK,
    ("lab-query", "python3"): f"{SET_UP}; from catalog.models import Author; {ASK}",
}
COMMANDS = {
    "make lab": ["make", "lab", "ARGS=--port=0 --no-browser"],
    "jupyter lab": [sys.executable, "-m", "jupyterlab", "--port=0", "--no-browser", "--allow-root"],
}


def measure(found: Server, work: str, method: str) -> dict[str, float]:
    """Return the ``seconds`` from the start to the page's or the first cell's answer."""
    variables = environment(
        {
            "DATABASE_URL": found.url("tcp"),
            "WORKBENCH_ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "workbench.settings",
        }
    )
    if method in COMMANDS:
        return {"seconds": _until_page(COMMANDS[method], variables)}
    return {"seconds": _until_answer(method, FIRST[work, method], variables)}


def _until_page(command: list[str], variables: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        own = dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"), folder)
        log = Path(folder, "log")
        began = time.perf_counter()
        with log.open("wb") as output:
            server = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=variables | own,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            while time.perf_counter() - began < SECONDS:
                if address := ADDRESS.search(log.read_text(encoding="utf-8")):
                    urllib.request.urlopen(address.group()).read()
                    return time.perf_counter() - began
                time.sleep(0.01)
            raise AssertionError(f"No lab after {SECONDS:.0f} s: {log.read_text(encoding='utf-8')}")
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _until_answer(kernel: str, cell: str, variables: dict[str, str]) -> float:
    began = time.perf_counter()
    manager, client = start_new_kernel(kernel_name=kernel, cwd=str(PROJECT), env=variables)
    try:
        # As in a lab, in which somebody could answer.
        client.execute_interactive(cell, allow_stdin=True, timeout=SECONDS, output_hook=lambda _: None)
        return time.perf_counter() - began
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
