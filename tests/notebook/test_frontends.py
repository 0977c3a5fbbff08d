"""The kernel as VS Code, JupyterLab and Notebook drive it, message by message.

VS Code starts the process itself, tells it where to listen, and talks to its sockets
(``src/kernels`` in https://github.com/microsoft/vscode-jupyter).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager

from tests.kernel import Kernel
from tests.throwaway import PROJECT, environment

# What each sends with a cell, and with what it wants to know for itself.
CELL = {"store_history": True, "allow_stdin": True}
VS_CODE_CELL = {**CELL, "stop_on_error": False}
VS_CODE_OWN = {"store_history": False, "allow_stdin": True, "stop_on_error": False}
LAB_OWN = {"silent": True, "store_history": False, "allow_stdin": False}

# As its list of variables does.
VARIABLES = """
import json as _VSCODE_json
print(_VSCODE_json.dumps({name: str(globals()[name]) for name in ["authors", "Author"]}))
del _VSCODE_json
"""
BEHIND_ITS_BACK = """
import psycopg2
other = psycopg2.connect(**{**connection.get_connection_params(), "cursor_factory": None})
other.autocommit = True
other.cursor().execute("DELETE FROM django_migrations WHERE app = 'catalog' AND name LIKE '0002%'")
other.close()
"""

RESULTS = [
    *("%branch list", "%branch diff main", "%evolve auth", "%workbench", "who_blocks()"),
    *("states('catalog')", "timeline('catalog')", "snapshot()", "rehearse('catalog', 'zero')"),
    *("frame(Author)", "frame(Author)['name']", "diagram('catalog')", "frame('SELECT pg_sleep(3)')"),
]
# What a webview does not run or fetch, or what would be there twice.
UNFIT = re.compile(
    r"<(script|iframe|img|link|object)|\b(id|src|href|on[a-z]+)=|url\(|@import|https?:", re.IGNORECASE
)

Message = dict[str, Any]


class Client:
    """One of the frontends of a kernel."""

    def __init__(self, connection_file: Path) -> None:
        self.channels = BlockingKernelClient(connection_file=str(connection_file))
        self.channels.load_connection_file()
        self.channels.start_channels()
        self.channels.wait_for_ready(timeout=60)

    def run(self, code: str, *, silent: bool = False, **options: Any) -> list[Message]:
        """Run code and return what it put out, and only that."""
        return self.outputs(self.channels.execute(code, silent=silent, **options))

    def outputs(self, request: str, timeout: float = 30) -> list[Message]:
        found: list[Message] = []
        while True:
            message: Message = self.channels.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return found
            if message["msg_type"] not in ("status", "execute_input"):
                found.append(message)

    def ask(self, channel: str, kind: str, **content: Any) -> Message:
        """Send a request on a channel and return the content of its reply."""
        socket = getattr(self.channels, f"{channel}_channel")
        request = self.channels.session.msg(kind, content)
        socket.send(request)
        while True:
            reply: Message = socket.get_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                return dict(reply["content"])


def text(outputs: list[Message]) -> str:
    """Return what was put out, as a person reads it."""
    return "\n".join(
        content.get("text") or content.get("data", {}).get("text/plain") or "\n".join(content["traceback"])
        for content in (output["content"] for output in outputs)
    )


@contextmanager
def started(folder: Path, cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start the process as VS Code does: what the kernelspec says, in its environment, and no more."""
    spec = KernelSpecManager().get_kernel_spec("workbench")
    file = folder / "connection file.json"
    write_connection_file(str(file))
    process = subprocess.Popen(
        [word.replace("{connection_file}", str(file)) for word in spec.argv],
        cwd=cwd,
        env=environment({**spec.env, "WORKBENCH_PROGRESS": None}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process, file
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    with started(tmp_path_factory.mktemp("a folder"), PROJECT) as running:
        yield running


@pytest.fixture(scope="module")
def client(kernel: tuple[subprocess.Popen[bytes], Path]) -> Iterator[Client]:
    one = Client(kernel[1])
    one.run("%manage migrate catalog zero --yes -v 0\n%manage migrate -v 0", **VS_CODE_CELL)
    one.run("Author.objects.create(name='A')", **VS_CODE_CELL)
    yield one
    one.channels.stop_channels()


@pytest.fixture
def branch(client: Client) -> Iterator[None]:
    client.run("%branch create side\n%branch use side", **VS_CODE_CELL)
    yield
    client.run("%branch drop", **VS_CODE_CELL)


def test_the_kernelspec_is_one_that_vs_code_starts_as_it_is() -> None:
    """It puts arguments of its own into those that run ipykernel as a module, and names them otherwise."""
    spec = KernelSpecManager().get_kernel_spec("workbench")
    assert Path(spec.argv[0]).is_absolute()
    assert "-m" not in spec.argv
    assert spec.argv.count("{connection_file}") == 1
    assert (spec.language, spec.display_name, spec.interrupt_mode) == ("python", "Workbench", "signal")


def test_a_kernel_started_in_the_workspace_says_what_it_is_and_can_be_debugged(client: Client) -> None:
    info = client.ask("shell", "kernel_info_request")
    assert info["language_info"]["name"] == "python"
    assert info["language_info"]["file_extension"] == ".py"
    assert "debugger" in info["supported_features"]
    debugging = client.ask(
        "control", "debug_request", type="request", seq=1, command="debugInfo", arguments={}
    )
    assert debugging["success"]
    assert text(client.run("str(settings.BASE_DIR)", **VS_CODE_CELL)) == repr(str(PROJECT))


@pytest.mark.parametrize("options", [VS_CODE_OWN, LAB_OWN], ids=["VS Code", "JupyterLab"])
@pytest.mark.usefixtures("branch")
def test_what_a_frontend_asks_for_itself_is_answered_and_nothing_else_is_said(
    client: Client, options: dict[str, Any]
) -> None:
    client.run("authors = Author.objects.all()", **VS_CODE_CELL)
    client.run(BEHIND_ITS_BACK, **VS_CODE_CELL)
    (answer,) = client.run(VARIABLES, **options)
    assert answer["content"]["name"] == "stdout"
    assert json.loads(answer["content"]["text"])["authors"] == "<QuerySet [<Author: A>]>"
    # The person is told in the next cell.
    said = text(client.run("Author", **VS_CODE_CELL))
    assert said.startswith("On branch side\n")
    assert "Another session migrated catalog to 0001_initial." in said


@pytest.mark.parametrize("options", [VS_CODE_OWN, LAB_OWN], ids=["VS Code", "JupyterLab"])
def test_what_a_frontend_asks_for_itself_is_told_nothing_of_transactions(
    client: Client, options: dict[str, Any]
) -> None:
    begin = "block = transaction.atomic(); block.__enter__(); connection.cursor().execute('SELECT 1')"
    client.run(begin, **VS_CODE_CELL)
    (answer,) = client.run("print('{}')", **options)
    assert answer["content"] == {"name": "stdout", "text": "{}\n"}
    assert "A transaction is open since cell" in text(client.run("1", **VS_CODE_CELL))
    (answer,) = client.run(
        "try: connection.cursor().execute('SELECT 1 / 0')\nexcept Exception: print('{}')", **options
    )
    assert answer["content"] == {"name": "stdout", "text": "{}\n"}
    said = text(client.run("connection.in_atomic_block", **VS_CODE_CELL))
    assert "was rolled back, because a statement in it failed" in said or options is LAB_OWN


def test_what_a_frontend_asks_for_itself_may_take_long_and_shows_no_progress(client: Client) -> None:
    (answer,) = client.run("frame('SELECT pg_sleep(1.3)'); print('{}')", **VS_CODE_OWN)
    assert answer["content"] == {"name": "stdout", "text": "{}\n"}


def test_a_cell_that_takes_long_shows_one_output_that_changes(client: Client) -> None:
    outputs = client.run("read = frame('SELECT pg_sleep(3)')", **VS_CODE_CELL)
    kinds = [output["msg_type"] for output in outputs]
    assert kinds == ["display_data", *["update_display_data"] * (len(kinds) - 1)]
    assert len({output["content"]["transient"]["display_id"] for output in outputs}) == 1
    assert re.fullmatch(r"Reading took \d\.\d s: 1 rows?", outputs[-1]["content"]["data"]["text/plain"])


def test_expressions_are_answered_with_the_reply(client: Client) -> None:
    request = client.channels.execute("1", user_expressions={"found": "Author.objects.count()"}, **CELL)
    while (reply := client.channels.get_shell_msg(timeout=30))["parent_header"]["msg_id"] != request:
        pass
    assert reply["content"]["user_expressions"]["found"]["data"]["text/plain"] == "1"


def test_a_cell_may_ask_where_somebody_answers(client: Client) -> None:
    request = client.channels.execute("input('What? ').upper()", **VS_CODE_CELL)
    question = client.channels.get_stdin_msg(timeout=30)
    assert question["content"]["prompt"] == "What? "
    client.channels.input("this")
    assert text(client.outputs(request)) == "'THIS'"


def test_names_are_completed_and_explained_after_vs_code_has_turned_jedi_off(client: Client) -> None:
    client.run("%config Completer.use_jedi = False", **VS_CODE_OWN)
    matches = client.ask("shell", "complete_request", code="Author.obj", cursor_pos=10)["matches"]
    assert any(match.endswith("objects") for match in matches)
    found = client.ask("shell", "inspect_request", code="frame", cursor_pos=5, detail_level=0)
    assert "DataFrame" in found["data"]["text/plain"]


@pytest.mark.skipif(os.name == "nt", reason="a query is not interrupted there")
@pytest.mark.parametrize("way", ["signal", "message"])
def test_a_query_is_interrupted_by_a_signal_and_by_a_message(
    way: str, kernel: tuple[subprocess.Popen[bytes], Path], client: Client
) -> None:
    request = client.channels.execute("connection.cursor().execute('SELECT pg_sleep(30)')", **VS_CODE_CELL)
    time.sleep(0.7)
    if way == "signal":
        os.kill(kernel[0].pid, signal.SIGINT)
    else:
        assert client.ask("control", "interrupt_request")["status"] == "ok"
    assert text(client.outputs(request, timeout=5)) == "KeyboardInterrupt: the query was cancelled."
    assert text(client.run("Author.objects.count()", **VS_CODE_CELL)) == "1"


def test_a_widget_that_nobody_knows_is_closed_and_the_kernel_goes_on(client: Client) -> None:
    client.channels.shell_channel.send(
        client.channels.session.msg(
            "comm_open", {"comm_id": "a", "target_name": "jupyter.widget.control", "data": {}}
        )
    )
    assert client.ask("shell", "comm_info_request")["comms"] == {}
    assert text(client.run("1 + 1", **CELL)) == "2"


@pytest.mark.usefixtures("branch")
def test_each_of_two_frontends_gets_what_its_own_cells_put_out(
    client: Client, kernel: tuple[subprocess.Popen[bytes], Path]
) -> None:
    second = Client(kernel[1])
    first_request = client.channels.execute("read = frame('SELECT pg_sleep(3)')", **CELL)
    second_request = second.channels.execute("Author.objects.count()", **CELL)
    first, other = client.outputs(first_request), second.outputs(second_request)
    second.channels.stop_channels()
    assert text(first[:1]) == "On branch side"
    assert {output["msg_type"] for output in first[1:]} == {"display_data", "update_display_data"}
    assert text(other) == "On branch side\n1"


@pytest.mark.usefixtures("branch")
def test_results_run_and_fetch_nothing_and_read_well_as_text(client: Client) -> None:
    outputs = [output for cell in RESULTS for output in client.run(cell, **VS_CODE_CELL)]
    assert {output["msg_type"] for output in outputs} <= {
        *("display_data", "update_display_data", "execute_result", "stream")
    }
    shown = [output["content"]["data"] for output in outputs if "data" in output["content"]]
    # With each the badge of the branch, and with the last its progress.
    assert len(shown) > 2 * len(RESULTS)
    assert all("text/html" in data or "text/vnd.mermaid" in data for data in shown)
    assert [found for data in shown if (found := UNFIT.search(data.get("text/html", "")))] == []
    assert [data for data in shown if re.search("<.* at 0x|</", data["text/plain"])] == []
    (diagram,) = [data for data in shown if "text/vnd.mermaid" in data]
    assert diagram["text/plain"].startswith("erDiagram\n    catalog_author {\n")


def test_it_goes_when_it_is_told_to_and_has_complained_of_nothing(tmp_path: Path) -> None:
    with started(tmp_path, PROJECT / "notebooks") as (process, file):
        client = Client(file)
        assert text(client.run("connection.ensure_connection(); print('own')", **VS_CODE_OWN)) == "own\n"
        greeting, module = text(client.run("Author.__module__", **CELL)).splitlines()
        assert "%workbench lists what can be done" in greeting
        assert module == "'catalog.models'"
        assert client.ask("control", "shutdown_request", restart=True)["restart"] is True
        client.channels.stop_channels()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    # After ipykernel's own note on how to connect, which VS Code leaves out of its log, its threads may
    # complain of each other's closed sockets. Nothing of ours does.
    assert said.startswith(b"NOTE: ")
    assert str(PROJECT / "workbench").encode() not in said


def test_after_a_restart_everything_is_there_again() -> None:
    with Kernel() as kernel:
        kernel.run("mine = 1")
        kernel._manager.restart_kernel()
        kernel._client.wait_for_ready(timeout=60)
        assert "NameError" in "".join(kernel.run("mine").error)
        assert kernel.run("Author.objects.count() >= 0").result == "True"
