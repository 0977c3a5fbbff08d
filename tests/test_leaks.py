"""Secrets in files that git keeps. They are put together here, so that this file holds none."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from workbench import redaction
from workbench.errors import OneSentence
from workbench.leaks import in_text, leaks

NEON = "np" + "g_AbC9dEf1GhI2"
ADDRESS = "postgresql://alex:{}@ep-cool-darkness-123456.us-east-2.aws.neon.te" + "ch/neondb"
SECRETS = {
    "an address with its password": ADDRESS.format("hun" + "ter2"),
    "a password of Neon's": NEON,
    "a key of Neon's API": "na" + "pi_0a1b2c3d4e5f6g7h8i9j0a1b2c3d4e5f6g7h8i9j",
    "a SECRET_KEY of Django's": "django-" + "insecure-)x$q0&7l%r_k3+8z@m1n(b5v!c9s#d2f4g6h8j",
    "a private key": f"-----BEGIN RSA PRIVATE {'KEY'}-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7",
}
NONE = [
    "postgresql://USER:PASSWORD@db.mycompany.com/DATABASE",
    "postgresql://alex:{password}@db.mycompany.com/shop",
    "postgresql://alex:${PASSWORD}@db.mycompany.com/shop",
    "postgresql://alex:<password>@db.mycompany.com/shop",
    "postgresql://alex:$DB_PASSWORD@db.mycompany.com/shop",
    "postgresql://alex:%s@db.mycompany.com/shop",
    "postgresql://alex:%(password)s@db.mycompany.com/shop",
    "postgresql://alex:[YOUR-PASSWORD]@db.mycompany.com/shop",
    "postgresql://alex:********@db.mycompany.com/shop",
    "postgresql://alex:%2A%2A%2A%2A@db.mycompany.com/shop",
    "postgresql://alex:s3cr3t@{host}/shop?host=%2Fvar%2Frun%2Fpostgres.d",
    "postgresql://alex:s3cr3t@[::1]:5432,localhost/shop",
    "postgresql://postgres:postgres@localhost:5432/postgres",
    "postgresql://alex:s3cr3t@db.example.com/shop",
    "https://docs.mycompany.com/a:b@c",
    "np" + "g_xxxxxxxxxxxxxxxx",
    "np" + "g_...",
    "django-insecure-",
    f"-----BEGIN PRIVATE {'KEY'}-----",
]


# What is a password's, though it looks like what stands for one, and where it leads, in whichever way said.
PASSWORDS = ["%40s3cr3tQ9w!x", "%24ecret99xyz", "$ecret99xyz", "SWORD" + "FISHXY", "{a}b", "[x", "*x*y"]
WHERE = [
    "[2001:470::1]:5432/shop",
    "/shop?host=db.mycompany.com",
    "/shop?sslmode=require&amp;host=%2Ftmp,db.mycompany.com",
    "localhost,db.mycompany.com/shop",
    "10.0.0.7/shop",
]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text(".env\n")
    return tmp_path


def notebook(*cells: dict[str, Any]) -> str:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}, indent=1)


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_by_its_file_and_line_and_not_shown(repository: Path, what: str) -> None:
    secret = SECRETS[what]
    (repository / "settings.py").write_text(f"# é\n\nSECRET = {secret!r}\n")
    found = [str(leak) for leak in leaks(repository)]
    assert f"settings.py, line 3: {what}" in found
    assert not any(secret in line for line in found)


@pytest.mark.parametrize("text", NONE)
def test_what_stands_for_a_secret_is_none(text: str) -> None:
    assert [*in_text(text, "a file")] == []


@pytest.mark.parametrize("password", PASSWORDS)
def test_no_password_is_taken_for_what_stands_for_one(password: str) -> None:
    assert [leak.what for leak in in_text(ADDRESS.format(password), "")] == ["an address with its password"]


@pytest.mark.parametrize("where", WHERE)
def test_an_address_is_one_however_it_says_its_host(where: str) -> None:
    text = f"postgresql://x:PASSWORD@localhost,postgresql://alex:{'hun' + 'ter2'}@{where}"
    assert [leak.what for leak in in_text(text, "")] == ["an address with its password"]


@pytest.mark.parametrize("before", ["_", "\n", "\\n", "\\t", "\\u0027", "%3A", "\x1b[33m", "=", "é"])
def test_a_secret_is_found_behind_whatever_a_text_writes(before: str) -> None:
    assert [leak.what for leak in in_text(f"x{before}{NEON}", "")] == ["a password of Neon's"]


def test_what_looks_like_the_start_of_many_addresses_takes_no_time() -> None:
    start = time.monotonic()
    for piece in ("://a:", "://a:b@", "://a:b", "a:b@c"):
        assert [*in_text(piece * 20_000, "")] == []
    assert time.monotonic() - start < 30


def test_a_notebooks_sources_and_outputs_are_read_as_they_are_shown(repository: Path) -> None:
    # Over the pieces that a stream comes in, and within what a result is besides its text.
    half = len(NEON) // 2
    stream = {"output_type": "stream", "name": "stdout", "text": [NEON[:half], NEON[half:] + "\n"]}
    result = {"output_type": "execute_result", "data": {"text/html": ["<b>", ADDRESS.format('hun\\"ter2')]}}
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": ["x", f"y {NEON}"]}
    (repository / "mine.ipynb").write_text(
        notebook(
            {"cell_type": "markdown", "source": ["# A\n", f"see {NEON}"]},
            {"cell_type": "code", "source": "1", "outputs": [stream]},
            {"cell_type": "code", "source": f'key = "{NEON}"', "outputs": [{**result}, error]},
        )
    )
    assert [leak.place for leak in leaks(repository) if leak.what == "a password of Neon's"] == [
        "mine.ipynb, cell 1, line 2",
        "mine.ipynb, cell 2, output",
        "mine.ipynb, cell 3, line 1",
        "mine.ipynb, cell 3, output",
    ]


def test_whatever_else_is_in_a_notebook_is_read_as_well(repository: Path) -> None:
    kept = {"parameters": {"key": NEON}}
    cell = {"metadata": kept, "attachments": {"x.txt": {"text/plain": NEON}}, "source": [1, NEON]}
    sheet = {"cells": [{"input": [NEON]}]}
    content = {"metadata": kept, "worksheets": [sheet], "cells": [cell, NEON], NEON: 1}
    (repository / "mine.ipynb").write_text(json.dumps(content))
    assert [leak.place for leak in leaks(repository)] == [
        "mine.ipynb, metadata",
        "mine.ipynb, worksheets",
        "mine.ipynb, cell 1, metadata",
        "mine.ipynb, cell 1, attachments",
        "mine.ipynb, cell 1, line 1",
        "mine.ipynb, cell 2, metadata",
        "mine.ipynb, metadata",
    ]


@pytest.mark.parametrize(
    "written",
    [f"<<<<<<< {NEON}", "[" * 100_000 + NEON, f'{{"x": {"[" * 950}"{NEON}"{"]" * 950}}}'],
    ids=["a merge", "no JSON, and deep", "deep"],
)
def test_a_notebook_that_is_none_is_read_as_a_text(repository: Path, written: str) -> None:
    (repository / "mine.ipynb").write_text(written)
    assert [leak.place for leak in leaks(repository)] == ["mine.ipynb, line 1"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_read_in_the_encoding_that_it_begins_with(repository: Path, encoding: str) -> None:
    (repository / "notes.txt").write_text(f"é\n{NEON}", encoding=encoding)
    (repository / "mine.ipynb").write_text(notebook({"source": NEON}), encoding=encoding)
    assert [leak.place for leak in leaks(repository)] == ["mine.ipynb, cell 1, line 1", "notes.txt, line 2"]


def test_a_persons_own_secrets_are_found_in_any_form(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_known", ())
    redaction.remember_all({"SOME_TOKEN": "own&t0ken-1", "DATABASE_URL": "postgresql://a:postgres@host/db"})
    (repository / "page.html").write_text("postgres\n<p>own&amp;t0ken-1</p>")
    assert [str(leak) for leak in leaks(repository)] == ["page.html, line 2: a secret of yours"]


def test_only_what_git_keeps_is_read(repository: Path) -> None:
    for name in (".env", "picture.png", "kept\nodd 'name.txt"):
        (repository / name).write_bytes(b"\0" * (name == "picture.png") + NEON.encode())
    (repository / "link").symlink_to("/etc/hostname")
    assert [leak.place for leak in leaks(repository)] == ["kept\nodd 'name.txt, line 1"]


def test_without_git_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OneSentence, match="is no git repository"):
        leaks(tmp_path)
