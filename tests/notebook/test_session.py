"""What a kernel sends holds no secret, whatever a cell does: a real one, and all of its messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.kernel import Kernel
from workbench.redaction import MASK

PASSWORD = 'p@ss/w&Qz81vX"<é>'
URL = f"postgresql://alex:{quote(PASSWORD, safe='')}@127.0.0.1:1/shop"
KEY = "napi_" + "k3y" * 8
SECRET_KEY = "(&s3cr3tqK9w$key'%s#&!"
TOKEN = "t0ken-of-another-service"
# In no variable, and in the file of variables only.
NEW, OLD, OVERRIDDEN = "npg_" + "NewAbC9dEf1g", "npg_" + "OldZyX9wVu1A", "0verridden-by-the-environment"
IN_FILE = f"# DATABASE_URL=postgresql://alex:{OLD}@ep-1.neon.tech/shop\nNEON_API_KEY={OVERRIDDEN}\n"
# Parts of them that look the same however they are written.
SECRETS = ("Qz81vX", "k3yk3yk3yk3yk3yk3y", "s3cr3tqK9w", TOKEN, NEW[4:12], OLD[4:12], OVERRIDDEN)

CELLS = [
    "settings.DATABASES",
    "print(settings.DATABASES['default']['PASSWORD'], settings.SECRET_KEY, settings.NEON_API_KEY)",
    "connection.settings_dict",
    "vars(connection)['settings_dict']",
    "connection.get_connection_params()",
    "import os; os.environ",
    "print(dict(os.environ)); display(vars(settings))",
    "pd.DataFrame({'value': dict(os.environ)})",
    "pd.Series([os.environ['DATABASE_URL']])",
    "%env",
    "%env DATABASE_URL",
    "%env NEON_API_KEY",
    "!env",
    "%%bash\nenv; env >&2",
    "!python -c 'import os; print(dict(os.environ))'",
    "import subprocess; subprocess.run('env; env >&2', shell=True); import time; time.sleep(0.3)",
    "import json; print(json.dumps(dict(os.environ)))",
    "from html import escape; print(escape(os.environ['DJANGO_SECRET_KEY']))",
    "from IPython.display import HTML, JSON; display(HTML(f'<b>{settings.NEON_API_KEY}</b>'))",
    "JSON({'deep': [{settings.NEON_API_KEY: os.environ['DATABASE_URL']}]})",
    "from workbench import settings as module; module._env",
    "%manage diffsettings --all",
    "import sys; print(settings.NEON_API_KEY, file=sys.stderr)",
    "import logging; logging.warning('to %s', os.environ['DATABASE_URL'])",
    "for letter in settings.NEON_API_KEY: print(letter, end='', flush=True)",
    "key = settings.NEON_API_KEY; print(key[:7], end='', flush=True); print(key[7:])",
    "def fail(one, key):\n    raise ValueError(one + key)\nfail(settings.SECRET_KEY, str(os.environ))",
    "%tb",
    "%xmode Verbose",
    "fail(os.environ['DATABASE_URL'], settings.SECRET_KEY)",
    "%tb Verbose",
    "%xmode Own",
    "import warnings; warnings.warn(os.environ['SERVICE_TOKEN'])",
    "Author.objects.count()",
    "display({'application/json': dict(os.environ), 'text/plain': 'x'}, raw=True)",
    "handle = display('x', display_id=True); handle.update(settings.NEON_API_KEY)",
    "display({'application/json': {'keys': {settings.NEON_API_KEY}}, 'text/plain': 'x'}, raw=True)",
    "import numpy as np; display(JSON({'keys': np.array([settings.NEON_API_KEY])}))",
    "from comm import create_comm; _ = create_comm(target_name='x', data={'keys': {settings.NEON_API_KEY}})",
    "pd.DataFrame({'v': [f'key={settings.SECRET_KEY}' + 'x' * 99, 'x' * 44 + settings.SECRET_KEY]})",
    "print(Author.objects.filter(name__contains=settings.NEON_API_KEY).query)",
    "%%bash\nset",
    "[each.encode() for each in (settings.SECRET_KEY, settings.DATABASES['default']['PASSWORD'])]",
    "text = json.dumps(settings.DATABASES['default']['PASSWORD'])",
    "print(text[:-6], end='', flush=True); time.sleep(0.1); print(text[-6:])",
    f"os.environ['SHOP_URL'] = 'postgresql://alex:{NEW[:6]}' '{NEW[6:]}@ep-2.neon.tech/shop'",
    "%env SHOP_URL",
    "print(open(os.environ['WORKBENCH_ENV_FILE']).read())",
    "pd.Series(open(os.environ['WORKBENCH_ENV_FILE']).read().splitlines())",
    "%who_ls",
    "%whos",
    "input(settings.NEON_API_KEY)",
]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    file = tmp_path_factory.mktemp("variables") / ".env"
    file.write_text(IN_FILE)
    changes = {
        "WORKBENCH_ENV_FILE": str(file),
        "DATABASE_URL": URL,
        "NEON_API_KEY": KEY,
        "NEON_PROJECT_ID": "cool-forest-123456",
        "DJANGO_SECRET_KEY": SECRET_KEY,
        "SERVICE_TOKEN": TOKEN,
    }
    with Kernel(changes) as running:
        yield running


def said(kernel: Kernel, request: str) -> list[dict[str, Any]]:
    """Return all messages that answer a request, until it is done with."""
    messages = []
    while True:
        message = kernel._client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") == request:
            messages.append(message)
            if message["content"].get("execution_state") == "idle":
                return messages


def leaks(messages: object) -> list[str]:
    text = json.dumps(messages, default=str)
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("cell", CELLS)
def test_no_output_holds_a_secret(kernel: Kernel, cell: str) -> None:
    messages = said(kernel, kernel._client.execute(cell, allow_stdin=False))
    assert len(messages) > 2, "the kernel did not run it"
    streams = "".join(message["content"]["text"] for message in messages if message["msg_type"] == "stream")
    assert leaks([messages, streams]) == []


def test_what_frontends_ask_for_themselves_holds_none_either(kernel: Kernel) -> None:
    client = kernel._client
    said(kernel, client.execute("import os; url = os.environ['DATABASE_URL']; places = {url: 1}"))
    asked = {"url": "url", "all": "settings.DATABASES", "error": "1 / 0 if url else 0"}
    replies = [
        client.execute("url", user_expressions=asked, reply=True, timeout=30),
        client.complete("places['", 8, reply=True, timeout=30),
        client.inspect("url", 3, reply=True, timeout=30),
        client.inspect("settings.DATABASES", 18, 1, reply=True, timeout=30),
    ]
    assert "********" in json.dumps(replies[0]["content"])
    assert "alex" in json.dumps([reply["content"] for reply in replies[1:3]])
    assert leaks([reply["content"] for reply in replies]) == []


def test_files_that_ipython_writes_of_earlier_cells_hold_none(kernel: Kernel, tmp_path: Path) -> None:
    log, notebook, history = (tmp_path / name for name in ("log.py", "cells.ipynb", "history.txt"))
    for cell in (
        f"%logstart -o {log}",
        "settings.NEON_API_KEY + ''",
        "print('so:', end=' ')\nfor letter in settings.NEON_API_KEY: print(letter, end='')",
        "print(settings.SECRET_KEY[:9])\nprint('and so on', file=sys.stderr)",
        "display(HTML(os.environ['DATABASE_URL']))",
        "raise ValueError(settings.SECRET_KEY)",
        "%logstop",
        f"%notebook {notebook}",
        f"%history -o -f {history}",
    ):
        kernel.run(cell, attended=True)
    files = [file.read_text() for file in (log, notebook, history)]
    assert all(MASK in text for text in files)
    assert "and so on" in files[1]
    assert leaks(files) == []


def test_the_debuggers_variables_hold_none(kernel: Kernel) -> None:
    client = kernel._client
    said(kernel, client.execute("url = settings.NEON_API_KEY"))

    def ask(command: str, **arguments: Any) -> dict[str, Any]:
        content = {"type": "request", "seq": 1, "command": command, "arguments": arguments}
        request = client.session.msg("debug_request", content)
        client.control_channel.send(request)
        while True:
            reply: dict[str, Any] = client.control_channel.get_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                return dict(reply["content"])

    variables = ask("inspectVariables")
    assert any(each["name"] == "url" for each in variables["body"]["variables"])
    assert leaks(variables) == []
    assert leaks(ask("richInspectVariables", variableName="url")) == []


def test_a_start_of_a_secret_comes_once_it_is_clear_that_it_is_none(kernel: Kernel) -> None:
    begun = KEY[:9]
    outcome = kernel.run(f"print({begun!r}, end='', flush=True)\nprint('!')")
    assert outcome.stdout == f"{begun}!\n"
    outcome = kernel.run(f"print({begun!r}, end='')")
    assert outcome.stdout == begun
    outcome = kernel.run(f"import sys\nprint({begun!r}, end='', flush=True)\nprint('other', file=sys.stderr)")
    assert (outcome.stdout, outcome.stderr) == (begun, "other\n")


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not copied there")
def test_a_copy_of_the_process_prints_and_tells_none(kernel: Kernel) -> None:
    code = "print('from the copy', settings.NEON_API_KEY, flush=True); os._exit(0)"
    outcome = kernel.run(f"import os\npid = os.fork()\nif not pid:\n    {code}\n_ = os.waitpid(pid, 0)")
    later = kernel.run("import time; time.sleep(0.5)")
    assert "from the copy ********" in outcome.stdout + later.stdout


def test_texts_without_secrets_are_as_they_are(kernel: Kernel) -> None:
    outcome = kernel.run(
        "print('alex, shop, password, napi_, postgres')\n{'PASSWORD': 'x', 1: ['a', None, 2.5]}"
    )
    assert outcome.stdout == "alex, shop, password, napi_, postgres\n"
    assert outcome.result == "{'PASSWORD': 'x', 1: ['a', None, 2.5]}"
    assert (
        kernel.run(
            "print('é' * 5_000)\nimport subprocess; _ = subprocess.run(['printf', 'é' * 5_000])"
        ).stderr
        == ""
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a notebook shows nothing of what they print there")
def test_what_a_cells_programs_print_goes_to_the_notebook_only(capfd: pytest.CaptureFixture[str]) -> None:
    # Within pytest ipykernel leaves what they print alone.
    with Kernel({"NEON_API_KEY": KEY, "PYTEST_CURRENT_TEST": None}) as running:
        cell = "import subprocess, time; subprocess.run('env; env >&2', shell=True); time.sleep(0.5)"
        outcome = running.run(cell)
        assert "NEON_API_KEY=********" in outcome.stdout
        assert "NEON_API_KEY=********" in outcome.stderr
        letters = running.run("_ = subprocess.run(['echo', 'é' * 9_999]); time.sleep(0.5)").stdout
        assert letters == "é" * 9_999 + "\n"
    assert "NEON_API_KEY" not in "".join(capfd.readouterr())
