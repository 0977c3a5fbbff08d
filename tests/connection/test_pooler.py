"""The project on Neon's two roads: commands and notebooks go direct, the web server through the pooler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.connection import pooler
from tests.connection.pooler import ALIAS, DIRECT, HOSTS, PASSWORD, POOLED, Neon
from tests.kernel import Kernel
from tests.throwaway import EVERYTHING, PROJECT

pytestmark = pytest.mark.needs("pgbouncer", "openssl")

FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "wrong password": ({"password": "npg_mistaken"}, " refused the role neondb_owner or its password: "),
    "missing database": ({"name": "attic"}, "There is no database attic on ep-cool-darkness-123456"),
    "wrong host": ({"host": "ep-nowhere-000000-pooler.neon.invalid"}, "There is no host ep-nowhere-000000"),
    "closed port": ({"host": ALIAS, "port": 1}, "No Postgres answers at postgres.example.org:1"),
}

# The books in chunks of two; with each, where it was read and how many cursors were open there.
ITERATE = """
import json
from catalog.models import Book
from django.db import connection
seen = []
for book in Book.objects.order_by("pk").iterator(chunk_size=2):
    with connection.cursor() as cursor:
        cursor.execute("SELECT host(inet_server_addr()), (SELECT count(*) FROM pg_cursors)")
        seen.append([book.pk, *cursor.fetchone()])
print(json.dumps(seen))
"""

SESSION = """
import json
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT host(inet_server_addr()), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    print(json.dumps(cursor.fetchone()))
"""

# What a web process reads and writes of frames; what it wrote is gone in the end.
FRAMES = """
import json
from catalog.models import Author, Book
from django.db import connection
from workbench.frames import FrameError, frame, load
books = Book.objects.order_by("pk")
read = frame(books.values("id", "title", "author__name"))
chunks = [chunk["id"].tolist() for chunk in frame.chunks(books, rows=3)]
new = [{"name": f"pooled {n}"} for n in range(25_000)]
written = load(Author, new), load(Author, frame(Author), on_conflict="update")
kept = load(Author, [{"id": 1, "name": "another"}], on_conflict="ignore")
try:
    load(Book, [{"title": "nobody's", "author_id": 0}])
except FrameError as error:
    refused = str(error)
gone, _ = Author.objects.filter(name__startswith="pooled").delete()
with connection.cursor() as cursor:
    cursor.execute("SELECT host(inet_server_addr()), (SELECT count(*) FROM pg_cursors)")
    where = cursor.fetchone()
print(json.dumps([read.to_dict("records"), chunks, written, kept, refused, gone, where]))
"""

REQUESTS = """
import json
from workbench.wsgi import application
from django.test import Client
client = Client(SERVER_NAME="localhost")
answers = [client.get(path) for path in ("/catalog/authors/", "/catalog/books/1/")]
print(json.dumps([[answer.status_code, answer.json()] for answer in answers]))
"""


@pytest.fixture(scope="module")
def neon() -> Iterator[Neon]:
    with pooler.neon() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def filled(neon: Neon) -> tuple[str, str, str]:
    """What ``migrate`` and two runs of ``populate`` say, starting from an empty database."""
    assert not neon.logins()
    said = manage(neon, "migrate"), manage(neon, "populate"), manage(neon, "populate")
    assert not neon.logins(), "A command went through the pooler"
    return said


def manage(neon: Neon, *arguments: str, **variables: str) -> str:
    return python(neon, "manage.py", *arguments, **variables)


def script(neon: Neon, code: str, **variables: str) -> Any:
    """Return what ``code`` prints as JSON, run after ``django.setup()``."""
    return json.loads(python(neon, "-c", f"import django; django.setup()\n{code}", **variables))


def python(neon: Neon, *arguments: str, **variables: str) -> str:
    done = start(neon, *arguments, **variables)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def start(
    neon: Neon, *arguments: str, url: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env={**os.environ, **neon.environment(url, **variables)},
        capture_output=True,
        encoding="utf-8",
        timeout=280,
    )


def refusal(neon: Neon, *, url: str, **variables: str) -> str:
    """Return the one line with which ``showmigrations`` fails."""
    done = start(neon, "manage.py", "showmigrations", url=url, **variables)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


def test_migrate_and_populate_work_at_the_direct_address(neon: Neon, filled: tuple[str, str, str]) -> None:
    migrated, first, second = filled
    assert "Applying catalog.0002_author_country... OK" in migrated
    assert first == "Added 3 authors and 7 books.\n"
    assert second.startswith("Nothing to add")
    assert script(neon, SESSION) == [HOSTS[DIRECT], True]


@pytest.mark.usefixtures("filled")
def test_a_notebook_iterates_with_server_side_cursors_at_the_direct_address(neon: Neon) -> None:
    with Kernel(neon.environment()) as kernel:
        seen = kernel.run(ITERATE).stdout
    assert json.loads(seen) == [[pk, HOSTS[DIRECT], 1] for pk in range(1, 8)]


@pytest.mark.usefixtures("filled")
def test_the_web_server_iterates_through_the_pooler_without_cursors(neon: Neon) -> None:
    seen = script(neon, ITERATE, WORKBENCH_WEB="1")
    assert seen == [[pk, None, 0] for pk in range(1, 8)]


@pytest.mark.usefixtures("filled")
def test_this_pooler_breaks_server_side_cursors_as_neons_does(neon: Neon) -> None:
    turned_on = (
        "from django.db import connection\nconnection.settings_dict['DISABLE_SERVER_SIDE_CURSORS'] = False"
    )
    code = f"import django; django.setup()\n{turned_on}\n{ITERATE}"
    done = start(neon, "-c", code, WORKBENCH_WEB="1")
    assert "InvalidCursorName" in done.stderr


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("web", "address"), [("0", HOSTS[DIRECT]), ("1", None)], ids=["direct", "pooled"])
def test_frames_are_read_and_loaded_on_both_roads(neon: Neon, web: str, address: str | None) -> None:
    before = len(neon.logins())
    read, chunks, written, kept, refused, gone, where = script(neon, FRAMES, WORKBENCH_WEB=web)
    assert [book["id"] for book in read] == list(range(1, 8))
    assert {book["author__name"] for book in read} == {"J.K. Rowling", "J.R.R. Tolkien", "George R.R. Martin"}
    assert chunks == [[1, 2, 3], [4, 5, 6], [7]]
    assert (written, kept, gone) == ([25_000, 25_003], 0, 25_000)
    assert "Key (author_id)=(0) is not present" in refused
    assert where == [address, 0]
    assert len(neon.logins()) - before == int(web)


@pytest.mark.usefixtures("filled")
def test_the_views_answer_through_the_pooler(neon: Neon) -> None:
    before = len(neon.logins())
    authors, books = json.loads(python(neon, "-c", REQUESTS))
    assert [authors[0], [author["id"] for author in authors[1]]] == [200, [1, 2, 3]]
    assert [books[0], [book["author_id"] for book in books[1]]] == [200, [1, 1, 1]]
    logins = neon.logins()[before:]
    assert len(logins) == 1, "One connection serves both requests"
    assert "tls=TLSv1.3" in logins[0]


@pytest.mark.usefixtures("filled")
def test_a_notebook_shows_the_password_nowhere(neon: Neon) -> None:
    changes = neon.environment()
    with Kernel(changes) as kernel:
        kernel.run("connection.ensure_connection(); raw = connection.connection")
        cells = (
            "settings.DATABASES",
            "raw.dsn, raw.info.dsn_parameters, raw.get_dsn_parameters()",
            "raw.info.password",
            "connection.get_connection_params()",
            "print(raw.info.password, end=' '); raw.info.password[:3] == 'npg'",
            "frame('SELECT * FROM pg_stat_activity').to_dict()",
        )
        for cell in cells:
            outcome = kernel.run(cell)
            assert not outcome.error
            said = outcome.stdout + outcome.result
            assert PASSWORD not in said
            assert quote(PASSWORD, safe="") not in said
            assert repr(PASSWORD)[1:-1] not in said


@pytest.mark.parametrize("web", ["0", "1"], ids=["direct", "pooled"])
def test_tls_is_demanded_and_its_certificate_can_be_verified(neon: Neon, web: str) -> None:
    plain = refusal(neon, url=neon.url(query="sslmode=disable"), WORKBENCH_WEB=web)
    assert "wants TLS" in plain or "no encryption" in plain
    stranger = refusal(neon, url=neon.url(query="sslmode=verify-full"), WORKBENCH_WEB=web)
    assert "cannot be verified" in stranger
    verified = f"sslmode=verify-full&sslrootcert={neon.certificate}"
    address, _ = script(neon, SESSION, url=neon.url(query=verified), WORKBENCH_WEB=web)
    assert address == (None if web == "1" else HOSTS[DIRECT])


def test_channel_binding_works_direct_and_is_explained_where_the_pooler_has_none(neon: Neon) -> None:
    url = neon.url(query="sslmode=require&channel_binding=require")
    assert script(neon, SESSION, url=url) == [HOSTS[DIRECT], True]
    assert "offers no channel binding" in refusal(neon, url=url, WORKBENCH_WEB="1")


def test_an_explicit_direct_address_is_used_and_must_name_the_same_database(neon: Neon) -> None:
    assert script(neon, SESSION, DATABASE_URL_UNPOOLED=neon.url(ALIAS)) == [HOSTS[ALIAS], True]
    other = refusal(neon, url=neon.url(), DATABASE_URL_UNPOOLED=neon.url(ALIAS, name="attic"))
    assert other == (
        "DATABASE_URL and DATABASE_URL_UNPOOLED name different databases, roles or endpoints: "
        "correct or unset DATABASE_URL_UNPOOLED."
    )


@pytest.mark.parametrize(("mistake", "said"), FAILURES.values(), ids=FAILURES)
def test_a_failure_to_connect_is_one_line(neon: Neon, mistake: dict[str, Any], said: str) -> None:
    url = neon.url(**mistake)
    with Kernel(neon.environment(url)) as kernel:
        in_cell = kernel.run("Author.objects.count()").error
    direct, pooled = refusal(neon, url=url), refusal(neon, url=url, WORKBENCH_WEB="1")
    assert said in direct
    (shown,) = in_cell
    assert shown.startswith(direct)
    assert "restart of the kernel" in shown
    assert pooled == direct.replace(DIRECT, POOLED).replace("000000.", "000000-pooler.")
    assert not any(secret in direct + pooled for secret in (PASSWORD, "npg_"))


@pytest.mark.skipif(not os.environ.get(EVERYTHING), reason=f"takes most of a minute: set {EVERYTHING}")
def test_the_tests_and_notebooks_pass_on_neon(neon: Neon) -> None:
    before = len(neon.logins())
    done = start(neon, "-m", "pytest", "tests/catalog", "notebooks", "-p", "no:cacheprovider", "-q")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert len(neon.logins()) == before, "Something went through the pooler"
    assert neon.ask("SELECT count(*) FROM pg_database WHERE datname LIKE '%workbench_test%'") == (0,)
