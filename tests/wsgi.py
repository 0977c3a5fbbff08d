"""A web server of many workers and threads, gunicorn, as it is deployed: https://gunicorn.org."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.throwaway import PROJECT

# As the README recommends. A thread keeps its session: the product of these is what the database sees, of any
# number of clients.
WORKERS, THREADS = 2, 8
OPTIONS = ["--workers", str(WORKERS), "--threads", str(THREADS), "--no-control-socket"]
LISTENING = re.compile(r"Listening at: (http://\S+)")
SECONDS = 60.0


@dataclass(frozen=True)
class WebServer:
    """``address`` is without a path; ``log`` holds what the server and Django wrote."""

    address: str
    log: Path
    process: psutil.Process

    @property
    def bytes(self) -> int:
        """The resident memory of its workers."""
        return sum(worker.memory_info().rss for worker in self.process.children())


@contextmanager
def web_server(application: str, variables: Mapping[str, str], *options: str) -> Iterator[WebServer]:
    """Serve a WSGI application, ``module:name``, at a free port of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            command = [
                sys.executable,
                "-m",
                "gunicorn",
                application,
                "--bind",
                "127.0.0.1:0",
                *OPTIONS,
                *options,
            ]
            process = psutil.Popen(
                command, cwd=PROJECT, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            yield WebServer(_address(log, process), log, process)
        finally:
            family = [process, *process.children()]
            process.terminate()
            # It waits for requests that are being answered.
            _, busy = psutil.wait_procs(family, timeout=SECONDS)
            for each in busy:
                each.kill()
            psutil.wait_procs(busy)


def _address(log: Path, process: psutil.Popen) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        said = log.read_text(encoding="utf-8")
        if (found := LISTENING.search(said)) and said.count("Booting worker") >= WORKERS:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"No web server: {log.read_text(encoding='utf-8')}")
