"""Secrets in files that git keeps. They are put together here, so that this file holds none."""

from __future__ import annotations

import json
import subprocess
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
    "postgresql://alex:********@db.mycompany.com/shop",
    "postgresql://postgres:postgres@localhost:5432/postgres",
    "postgresql://alex:s3cr3t@db.example.com/shop",
    "https://docs.mycompany.com/a:b@c",
    "np" + "g_xxxxxxxxxxxxxxxx",
    "np" + "g_...",
    "django-insecure-",
    f"-----BEGIN PRIVATE {'KEY'}-----",
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
    (repository / "mine.ipynb").write_text(f"<<<<<<< {NEON}")
    assert [leak.place for leak in leaks(repository)] == ["mine.ipynb, line 1"]


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
