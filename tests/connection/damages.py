"""What may have happened to the files of an embedded server, what is said then, and what mends it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# As the sentences have what is to be typed.
TYPED = re.compile(r"'sudo ([^']+)'|run '(chmod [^']+)'")


def typed(sentence: str) -> None:
    """Do what the sentence says that one should type."""
    found = TYPED.search(sentence)
    assert found, sentence
    subprocess.run(found[1] or found[2], shell=True, check=True)


@dataclass(frozen=True)
class Damage:
    """``happen`` is done to the data folder; ``said`` is a part of the sentence; ``mend`` does what it says.

    Without ``mend`` the data are lost, and a copy has to be put back. What is usual is tried each time.
    """

    what: str
    happen: Callable[[Path], object]
    said: str
    mend: Callable[[Path, str], object] | None = None
    as_root: bool = False
    is_usual: bool = False

    @property
    def parameter(self) -> object:
        return pytest.param(self, id=self.what, marks=[pytest.mark.as_root] if self.as_root else [])


def append(file: str, line: str) -> Callable[[Path], object]:
    def happen(data: Path) -> None:
        with (data / file).open("a") as opened:
            opened.write(f"{line}\n")

    return happen


def write(file: str, content: str) -> Callable[..., object]:
    return lambda data, _="": (data / file).write_text(content)


def cut(file: str, to: int) -> Callable[[Path], object]:
    return lambda data: os.truncate(data / file, to)


def torn(data: Path) -> None:
    for segment in (data / "pg_wal").glob("0*"):
        segment.write_bytes(bytes(segment.stat().st_size))


def of_root(data: Path) -> None:
    subprocess.run(["chown", "-R", "root:root", data], check=True)


def of_root_in_part(data: Path) -> None:
    os.chown(data / "global" / "pg_control", 0, 0)


def gone(part: str) -> Callable[[Path], object]:
    def happen(data: Path) -> None:
        found = data / part
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return happen


CONTROL = "global/pg_control"

DAMAGES = [
    Damage(
        "open to others",
        lambda data: data.chmod(0o755),
        "Others may enter",
        lambda _, said: typed(said),
        is_usual=True,
    ),
    Damage("root's", of_root, "belong to root", lambda _, said: typed(said), as_root=True, is_usual=True),
    Damage("root's in part", of_root_in_part, "may not read", lambda _, said: typed(said), as_root=True),
    Damage(
        "PG_VERSION missing",
        gone("PG_VERSION"),
        "have lost their file PG_VERSION: write the line 18",
        write("PG_VERSION", "18\n"),
        is_usual=True,
    ),
    Damage("PG_VERSION of another", write("PG_VERSION", "17\n"), "holds data of Postgres 17"),
    Damage("control file missing", gone(CONTROL), 'could not open file ".*pg_control"'),
    Damage("control file cut off", cut(CONTROL, 100), "read 100 of 296"),
    Damage("control file empty", write(CONTROL, "\0" * 8192), "incompatible with server"),
    Damage("WAL torn", torn, "checkpoint record.*pg_resetwal"),
    Damage("WAL gone", gone("pg_wal"), 'WAL directory "pg_wal" does not exist'),
    Damage("transactions gone", gone("pg_xact"), "status of transaction"),
    Damage("folder gone", gone("pg_notify"), 'could not open directory "pg_notify"'),
    Damage("map gone", gone("global/pg_filenode.map"), "pg_filenode.map"),
    Damage("databases gone", gone("base"), 'subdirectory "base/5" is missing'),
    Damage(
        "configuration missing",
        gone("postgresql.conf"),
        "postgresql.conf is missing: make it anew, an empty file will do",
        write("postgresql.conf", ""),
    ),
    Damage(
        "configuration damaged",
        append("postgresql.conf", "max_connections = (("),
        "Postgres cannot use .*postgresql.conf: syntax error in file .* line .*empty the file",
        write("postgresql.conf", ""),
        is_usual=True,
    ),
    Damage(
        "configuration too large",
        append("postgresql.auto.conf", "shared_buffers = '900TB'"),
        r"postgresql.auto.conf: .*shared_buffers.*empty the file",
        write("postgresql.auto.conf", ""),
    ),
    Damage(
        "access damaged",
        write("pg_hba.conf", "foo bar\n"),
        "write the one line 'local all all trust' into it",
        write("pg_hba.conf", "local all all trust\n"),
    ),
]
