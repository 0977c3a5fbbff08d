"""What ``make lab`` starts, without a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nbformat
import psutil
import pytest

from tests.throwaway import PROJECT, environment

COMMAND = [sys.executable, "manage.py", "shell_plus", "--lab"]
WELCOME = "api/contents/notebooks/Welcome.md"


@dataclass(frozen=True)
class Lab:
    """A running lab: what it printed, its process, and the environment in which it was started."""

    printed: list[str]
    process: int
    variables: dict[str, str]

    def ask(self, path: str, method: str = "GET", body: object = None, token: bool = True) -> Any:
        """Return what an address answers: JSON, or an HTTP status that is an error."""
        address = urlsplit(self.printed[0].split()[-1])
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"token {parse_qs(address.query)['token'][0]}"
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{address.netloc}/{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("jupyter")
    own = {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    log = folder / "log"
    variables = environment(own)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*COMMAND, "--", "--port=0", "--no-browser"],
            cwd=PROJECT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Lab(_printed(server, log), server.pid, variables)
    finally:
        server.terminate()
        server.wait(60)
        said = log.read_text(encoding="utf-8").splitlines()[3:]
        assert [line for line in said if "received signal 15, stopping" not in line] == []


def _printed(server: subprocess.Popen[bytes], log: Path) -> list[str]:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        lines = log.read_text(encoding="utf-8").splitlines()
        if len(lines) >= 3:
            return lines
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8"))


def test_it_prints_three_lines_with_the_addresses(lab: Lab) -> None:
    address = r"http://localhost:\d+{}\?token=\w+"
    assert re.fullmatch(f"JupyterLab +{address.format('/lab/tree/notebooks/Welcome.md')}", lab.printed[0])
    assert re.fullmatch(f"The page +{address.format('/workbench/')}", lab.printed[1])
    assert lab.printed[2] == "Control-C stops both."


def test_nobody_is_let_in_without_the_token(lab: Lab) -> None:
    assert lab.ask(WELCOME, token=False) == 403


def test_the_welcome_page_is_among_the_lessons_and_on_no_disk(lab: Lab) -> None:
    listed = lab.ask("api/contents/notebooks")["content"]
    (welcome,) = [each for each in listed if each["name"] == "Welcome.md"]
    assert welcome["content"] is None
    assert not (PROJECT / "notebooks" / "Welcome.md").exists()
    model = lab.ask(f"{WELCOME}?content=1&hash=1")
    assert model["content"].startswith("# Welcome")
    assert model["hash"]
    assert f"](http://localhost:{urlsplit(lab.printed[0].split()[-1]).port}/workbench/)" in model["content"]
    assert all(each["name"] != "Welcome.md" for each in lab.ask("api/contents/")["content"])


def test_the_welcome_page_cannot_be_saved_and_other_files_can(lab: Lab) -> None:
    assert lab.ask(f"{WELCOME}/checkpoints") == []
    saved = {"type": "file", "format": "text", "content": "x"}
    assert lab.ask(WELCOME, "PUT", saved) == 403
    name = f"saved-{os.getpid()}.md"  # Not among the lessons, which other tests count and copy.
    try:
        assert lab.ask(f"api/contents/{name}", "PUT", saved)["path"] == name
        assert lab.ask(f"api/contents/{name}?content=1")["content"] == "x"
    finally:
        (PROJECT / name).unlink(missing_ok=True)


def test_a_lesson_that_nobody_ran_comes_without_the_outputs_of_others(lab: Lab) -> None:
    path = "notebooks/01_migrate.ipynb"
    saved = nbformat.read(PROJECT / path, as_version=4)
    assert any(cell.get("outputs") for cell in saved.cells)
    content = lab.ask(f"api/contents/{path}?content=1")["content"]
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert [cell["source"] for cell in content["cells"]] == [cell.source for cell in saved.cells]


def test_what_somebody_ran_keeps_its_outputs(lab: Lab) -> None:
    name = f"mine-{os.getpid()}.ipynb"
    cell = nbformat.v4.new_code_cell(
        "x", execution_count=3, outputs=[nbformat.v4.new_output("stream", text="mine")]
    )
    try:
        metadata = {"language_info": {"name": "python", "version": "3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), PROJECT / name)
        (shown,) = lab.ask(f"api/contents/{name}?content=1")["content"]["cells"]
        assert (shown["execution_count"], shown["outputs"][0]["text"]) == (3, "mine")
    finally:
        (PROJECT / name).unlink(missing_ok=True)


def test_no_kernel_is_offered_that_lacks_the_models(lab: Lab) -> None:
    found = lab.ask("api/kernelspecs")
    assert found["default"] == "workbench"
    assert "python3" not in found["kernelspecs"]


def test_a_terminal_opens_where_manage_py_is(lab: Lab) -> None:
    before = set(psutil.Process(lab.process).children())
    terminal = lab.ask("api/terminals", "POST", {"cwd": "notebooks"})
    (shell,) = set(psutil.Process(lab.process).children()) - before
    assert Path(shell.cwd()) == PROJECT
    assert shell.environ()["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    lab.ask(f"api/terminals/{terminal['name']}", "DELETE")


def test_a_second_lab_of_the_folder_says_where_the_first_is(lab: Lab) -> None:
    second = subprocess.run(
        COMMAND, cwd=PROJECT, env=lab.variables, capture_output=True, text=True, timeout=60
    )
    address = lab.printed[0].split()[-1]
    said = second.stdout.splitlines()
    assert said[0] == "A lab of this folder runs already:"
    assert said[1].split()[-1] == address
    assert second.returncode == 0


def test_jupyter_asks_nothing_and_calls_nobody(lab: Lab) -> None:
    asked = "lab/api/settings/@jupyterlab/apputils-extension:notification"
    settings = lab.ask(asked)
    defaults = {name: each["default"] for name, each in settings["schema"]["properties"].items()}
    assert (defaults["fetchNews"], defaults["checkForUpdates"]) == ("false", False)
