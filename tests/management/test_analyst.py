"""``manage.py analyst``: by an owner who is no superuser, on a server with passwords; on the embedded one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.conftest import Manage
from tests.connection.pooler import ALIAS, DIRECT, Neon, neon
from tests.kernel import Kernel
from tests.throwaway import ADDRESSES, EVERYTHING, HOME, PROJECT

ONLY_FULL = pytest.mark.skipif(not os.environ.get(EVERYTHING), reason="takes many commands")

# A name for each run: the file is in the project.
NAME = f"analyst_{os.getpid()}"
FILE = PROJECT / f".env.{NAME}"

# What each statement comes to, once the role has taken back what it only reads by default.
TRY = """
import json, sys
from django.db import DatabaseError, connection
found = {}
with connection.cursor() as cursor:
    cursor.execute("SELECT current_user, current_setting('statement_timeout'), "
                   "current_setting('default_transaction_read_only')")
    found["is"] = cursor.fetchone()
    cursor.execute("SET default_transaction_read_only = off")
    for statement in json.loads(sys.stdin.read()):
        try:
            cursor.execute(statement)
            found[statement] = cursor.rowcount
        except DatabaseError as error:
            found[statement] = getattr(error.__cause__, "pgcode", None)
print(json.dumps(found))
"""
DENIED = "42501"
REFUSED = [
    "INSERT INTO catalog_author (name, bio, country, created_at) VALUES ('x', '', '', now())",
    "UPDATE catalog_book SET title = 'x'",
    "DELETE FROM django_migrations",
    "TRUNCATE catalog_book",
    "ALTER TABLE catalog_author ADD COLUMN x int",
    "DROP TABLE catalog_book",
    "CREATE TABLE x ()",
    "CREATE TABLE later_too ()",
    "CREATE SCHEMA x",
    "CREATE DATABASE x",
    "CREATE ROLE x",
    f"ALTER ROLE {NAME} CREATEROLE",
    "SELECT nextval('catalog_author_id_seq')",
    "SELECT password FROM auth_user",
    "SELECT session_key FROM django_session",
    "SELECT * FROM django_session",
    "SELECT key FROM authtoken_token",
    'SELECT "accessKey" FROM held',
    "SELECT smtp_pass FROM held",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
]
READ = {
    "SELECT name FROM catalog_author": 3,
    "SELECT * FROM catalog_book": 7,
    "SELECT username, email FROM auth_user": 0,
    "SELECT last_value FROM catalog_author_id_seq": 1,
    "SELECT user_id FROM authtoken_token": 1,
    "SELECT key FROM held": 1,
    # Made after it, by the owner.
    "SELECT * FROM later": 1,
    "SELECT * FROM archive.later": 1,
}
# As of the REST framework, and of others.
BEFORE = (
    "DROP TABLE IF EXISTS authtoken_token, held",
    "CREATE TABLE authtoken_token AS SELECT 'x' AS key, 1 AS user_id",
    """CREATE TABLE held AS SELECT 1 AS key, 'x' AS "accessKey", 'x' AS smtp_pass""",
)
LATER = (
    "CREATE TABLE later AS SELECT 1 AS n",
    "CREATE SCHEMA archive",
    "CREATE TABLE archive.later AS SELECT 1 AS n",
)

Owner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[Neon]:
    with neon() as running:
        yield running


@pytest.fixture(scope="module")
def owner(server: Neon) -> Iterator[Owner]:
    """Run ``manage.py`` as the owner of the database."""

    def run(*arguments: str, host: str = ALIAS, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env={**os.environ, **server.environment(server.url(host), **variables)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert run("migrate", "--verbosity=0").returncode == 0
    assert run("populate").returncode == 0
    yield run
    run("analyst", NAME, "--drop")
    FILE.unlink(missing_ok=True)


def as_analyst(server: Neon) -> dict[str, str | None]:
    own = dict.fromkeys(ADDRESSES)
    return {**server.environment(), **own, "WORKBENCH_ENV_FILE": FILE.name}


def tried(server: Neon, *statements: str) -> dict[str, object]:
    variables = {name: value for name, value in as_analyst(server).items() if value is not None}
    base = {name: value for name, value in os.environ.items() if name not in ADDRESSES}
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v0", "-c", TRY],
        cwd=PROJECT,
        env={**base, **variables},
        input=json.dumps(statements),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def run_as_owner(server: Neon, owner: Owner, *statements: str) -> None:
    code = (
        f"from django.db import connection\\nc = connection.cursor()\\nfor s in {statements!r}: c.execute(s)"
    )
    done = owner("shell", "-v0", "-c", code.replace("\\n", "\n"))
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("pgbouncer", "openssl")
@pytest.mark.parametrize(
    "host", [ALIAS, pytest.param(DIRECT, marks=ONLY_FULL)], ids=["any Postgres", "as Neon"]
)
def test_it_reads_everything_but_secrets_and_can_change_nothing(
    server: Neon, owner: Owner, host: str
) -> None:
    run_as_owner(server, owner, *BEFORE)
    done = owner("analyst", NAME, host=host)
    assert (done.returncode, done.stderr) == (0, "")
    kept = "Kept from it: auth_user.password, authtoken_token.key, django_session.session_key, held.accessKey"
    assert kept in done.stdout
    assert f"WORKBENCH_ENV_FILE=.env.{NAME} make lab" in done.stdout
    run_as_owner(server, owner, "DROP TABLE IF EXISTS later", "DROP SCHEMA IF EXISTS archive CASCADE", *LATER)
    found = tried(server, *REFUSED, *READ)
    assert found.pop("is") == [NAME, "1min", "on"]
    assert found == {**dict.fromkeys(REFUSED, DENIED), **READ}


@pytest.mark.needs("pgbouncer", "openssl")
def test_its_password_is_in_a_private_file_and_nowhere_else(server: Neon, owner: Owner) -> None:
    first = owner("analyst", NAME)
    url = FILE.read_text().splitlines()[1]
    password = url.split(":")[2].partition("@")[0]
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    assert subprocess.run(["git", "check-ignore", "-q", FILE.name], cwd=PROJECT).returncode == 0
    second = owner("analyst", NAME)
    assert FILE.read_text().splitlines()[1] != url
    log = (server.folder / "postgres.log").read_text()
    for said in (first.stdout, first.stderr, second.stdout, second.stderr, log):
        assert password not in said
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(
            host="127.0.0.3",
            port=server.port,
            dbname="neondb",
            user=NAME,
            password=password,
            sslmode="require",
        )


@pytest.mark.needs("pgbouncer", "openssl")
def test_whoever_makes_it_is_not_shown_its_password_either(owner: Owner) -> None:
    made = (
        "from workbench.connection import analyst; from workbench.redaction import redacted; "
        f"analyst.make({NAME!r}, lambda variables: print(redacted(variables['DATABASE_URL'])))"
    )
    assert f"://{NAME}:********@" in owner("shell", "-v0", "-c", made).stdout


@ONLY_FULL
@pytest.mark.needs("pgbouncer", "openssl")
def test_a_kernel_works_as_it_and_says_why_it_cannot_write(server: Neon, owner: Owner) -> None:
    assert owner("analyst", NAME).returncode == 0
    with Kernel(as_analyst(server)) as kernel:
        assert kernel.run("where()").result.endswith(", database neondb, read-only")
        for reading in (
            "frame(Author)",
            'snapshot() - models_at("catalog")',
            'states("catalog")',
            "who_blocks()",
        ):
            assert kernel.run(reading).error == []
        assert kernel.run("%branch list").error == []
        (sentence,) = kernel.run('Author.objects.create(name="x")').error
        assert "only reads" in sentence
        kernel.run("connection.cursor().execute('SET default_transaction_read_only = off')")
        (sentence,) = kernel.run('Author.objects.create(name="x")').error
        assert sentence.startswith(f"The role {NAME} may not do this")


@ONLY_FULL
@pytest.mark.needs("pgbouncer", "openssl")
def test_it_can_be_taken_back_in_branches_too(server: Neon, owner: Owner) -> None:
    assert owner("analyst", NAME).returncode == 0
    assert owner("branch", "create", "copied").returncode == 0
    gone = owner("analyst", NAME, "--drop")
    assert (gone.returncode, gone.stderr) == (0, "")
    assert not FILE.exists()
    assert server.ask(f"SELECT count(*) FROM pg_roles WHERE rolname = '{NAME}'") == (0,)
    assert owner("branch", "drop", "copied").returncode == 0
    again = owner("analyst", NAME, "--drop")
    assert (again.returncode, again.stderr) == (1, f"CommandError: There is no role {NAME}.\n")


@ONLY_FULL
@pytest.mark.needs("pgbouncer", "openssl")
def test_what_may_not_be_is_one_sentence(server: Neon, owner: Owner) -> None:
    for name, reason in (
        ("neondb_owner", "There is a role neondb_owner that this command did not make"),
        ("Robert'); DROP", "cannot be such a role's name"),
        ("pg_analyst", "cannot be such a role's name"),
        ("example", "There is a file .env.example of another kind"),
    ):
        done = owner("analyst", name)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert reason in line
    assert owner("analyst", NAME).returncode == 0
    done = subprocess.run(
        [sys.executable, "manage.py", "analyst", "another"],
        cwd=PROJECT,
        env={name: value for name, value in {**os.environ, **as_analyst(server)}.items() if value is not None}
        | {"WORKBENCH_READ_ONLY": "0"},
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"CommandError: The role {NAME} may not make roles: ask an administrator for ALTER ROLE"
    )
    assert not Path(PROJECT, ".env.another").exists()


@ONLY_FULL
@pytest.mark.skipif(os.name == "nt", reason="there the embedded server has one role")
def test_on_the_embedded_server_it_keeps_from_mistakes_and_says_so(manage: Manage) -> None:
    own = {"DATABASE_URL": "", "WORKBENCH_HOME": str(HOME)}
    assert manage("migrate", "--verbosity=0", **own).returncode == 0
    try:
        done = manage("analyst", NAME, **own)
        assert (done.returncode, done.stderr) == (0, "")
        assert "This server asks nobody for a password" in done.stdout
        role = {"WORKBENCH_ENV_FILE": str(FILE), "WORKBENCH_HOME": str(HOME), "DATABASE_URL": ""}
        refused = manage("populate", **{**role, "WORKBENCH_READ_ONLY": "0"})
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "ermission denied" in refused.stderr or "may not do this" in refused.stderr
        assert manage("showmigrations", **role).returncode == 0
    finally:
        assert manage("analyst", NAME, "--drop", **own).returncode == 0
