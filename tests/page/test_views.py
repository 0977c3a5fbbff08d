"""What the page shows, to whom, and what it leaves alone."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from tests.migrating import session, until
from tests.migrator import migrate
from tests.page.conftest import ALIAS, Seen
from workbench import evolved
from workbench.branches import create, drop, maintenance, reset
from workbench.connection import embedded, glance
from workbench.page import ASSETS

PEOPLE = (
    "INSERT INTO catalog_author (id, name, bio, country, created_at) VALUES "
    "(1, 'Ursula K. Le Guin', '', 'United States', '2024-05-06 07:08:09.123Z'), "
    "(2, 'Italo Calvino', 'Cosmicomics', 'Italy', now())",
    "INSERT INTO catalog_book (id, title, author_id, created_at) "
    "SELECT n, 'Title ' || n, 1, now() FROM generate_series(1, 5) AS n",
)
# How many of the page's own sessions there are.
LOOKING = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{glance.APPLICATION}'"


@pytest.fixture
def filled(seen: Seen) -> Seen:
    """The page of two authors and five books, at the last migration."""
    assert not migrate("--verbosity=0", using=ALIAS).error
    seen.ask(*PEOPLE)
    connections[ALIAS].close()
    return seen


def test_a_locked_table_is_left_alone_and_said_to_be_locked_by_whom(filled: Seen) -> None:
    with session(ALIAS) as somebody:
        somebody("BEGIN", "ALTER TABLE catalog_author ADD COLUMN born int")
        page = filled.get()  # Whoever waits for the lock has no answer before its end, or none but an error.
        (pid,) = somebody("SELECT pg_backend_pid()")[0]
        somebody("ROLLBACK")
    assert page.status == 200
    assert f"catalog_author is locked by process {pid} (somebody, idle in transaction" in page.text
    assert "Title 1" in page.text
    assert "Italo Calvino" not in page.text
    assert "ALTER TABLE" not in page.text


def test_nobody_stands_behind_the_page_in_a_line_for_a_lock(filled: Seen) -> None:
    with session(ALIAS) as reader, session(ALIAS) as writer:
        reader("BEGIN", "SELECT * FROM catalog_author")
        waiting = threading.Thread(
            target=writer, args=["BEGIN", "LOCK TABLE catalog_author IN ACCESS EXCLUSIVE MODE", "ROLLBACK"]
        )
        waiting.start()
        try:
            until(
                lambda: reader(
                    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'catalog_author'::regclass"
                )
            )
            page = filled.get()
        finally:
            reader("ROLLBACK")
            waiting.join()
    assert "catalog_author is about to be locked by process" in page.text
    assert "Title 1" in page.text


def test_locked_records_are_one_sentence_and_the_page_recovers(filled: Seen) -> None:
    with session(ALIAS) as somebody:
        somebody("BEGIN", "LOCK TABLE django_migrations IN ACCESS EXCLUSIVE MODE")
        page = filled.get()
        somebody("ROLLBACK")
    assert (page.status, page.headers["Retry-After"]) == (503, "2")
    assert "django_migrations is locked by process" in page.text
    assert filled.get().status == 200


def test_a_branch_that_was_dropped_is_a_404_with_the_way_back(filled: Seen) -> None:
    create("try-out", using=ALIAS)
    assert filled.get(branch="try-out").status == 200
    drop("try-out", using=ALIAS)
    page = filled.get(branch="try-out", is_again=True)
    assert page.status == 404
    assert "There is no branch try-out: there is main." in page.text
    assert "branch=main" in page.html


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"branch": "man"}, "There is no branch man: did you mean main?"),
        ({"app": "catalogue"}, "This project has no app catalogue: did you mean catalog?"),
        ({"app": "auth"}, "This project has no app auth."),
        ({"database": "sen"}, "There is no database sen: did you mean seen?"),
    ],
)
def test_what_is_not_there_is_a_404_that_says_so(seen: Seen, query: dict[str, str], sentence: str) -> None:
    page = seen.get(is_again=False, etag="", **query)
    assert page.status == 404
    assert sentence in page.text


def test_looking_again_starts_no_server_and_opening_the_page_does(
    client: Client, embedded_home: Path, url: str
) -> None:
    del url  # For its permission to use databases.
    stopped = Seen(client, "")
    page = stopped.get(database="stopped", is_again=True)
    assert (page.status, embedded.Cluster(embedded_home).postmaster()) == (503, None)
    assert "The embedded Postgres does not run: it starts with the next cell" in page.text
    assert stopped.get(database="stopped").status == 200
    assert stopped.get(database="stopped", is_again=True).status == 200
    embedded.stop(embedded_home)
    for _ in range(3):
        assert stopped.get(database="stopped", is_again=True).status == 503
    assert embedded.Cluster(embedded_home).postmaster() is None


@pytest.fixture
def embedded_home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("home")
    for folder in (home, home.parent, home.parent.parent):
        folder.chmod(0o755)  # The server runs as nobody, if we are root.
    entry = connections.databases["default"]
    connections.databases["stopped"] = {**entry, "NAME": embedded.DATABASE, "EMBEDDED": str(home)}
    yield home
    embedded.stop(home)
    del connections["stopped"]
    del connections.databases["stopped"]


def test_a_refused_role_is_one_sentence_without_password_or_path(seen: Seen) -> None:
    entry = connections.databases[ALIAS]
    connections.databases["refused"] = {**entry, "USER": "nobody_here", "PASSWORD": "hunter2"}
    try:
        page = seen.get(database="refused")
    finally:
        del connections.databases["refused"]
    assert page.status == 503
    assert "The embedded Postgres refused the role nobody_here or its password" in page.text
    assert "hunter2" not in page.html
    assert "/tmp" not in page.html


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_other_methods_are_refused(method: str) -> None:
    client = Client(enforce_csrf_checks=True)
    for address in ("/", *(f"/{name}" for name in ASSETS)):
        response = getattr(client, method)(address)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_and_no_more(seen: Seen) -> None:
    response = seen.client.head("/", {"database": ALIAS})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["ETag"]


def test_hostile_names_and_values_are_only_text(seen: Seen) -> None:
    evil = "<script>alert('%s')</script>"
    quoted = evil.replace("'", "''")
    name = f'catalog_{evil}%(x)s "'
    table = '"' + name.replace('"', '""') + '"'
    seen.ask(
        f'CREATE TABLE {table} (id serial PRIMARY KEY, "{evil}" text, "a""b" int REFERENCES {table})',
        f"INSERT INTO {table} VALUES (1, '{quoted}', NULL), (2, E'\\u202e\\x01{quoted}', 1)",
    )
    page = seen.get()
    assert page.status == 200
    assert "<script>alert" not in page.html
    assert page.html.count("<script") == 1
    assert evil in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "style=" not in page.html


def test_other_apps_tables_and_secret_columns_are_never_read(filled: Seen) -> None:
    filled.ask(
        "INSERT INTO auth_user VALUES (1, 'pbkdf2$1', NULL, true, 'boss', '', '', 'boss@example.org', true, "
        "true, now())",
        "CREATE TABLE catalog_login (id int PRIMARY KEY, name text, password text, api_token text)",
        "INSERT INTO catalog_login VALUES (1, 'somebody', 'hunter2', 'abc123')",
        "CREATE TABLE catalog_pass (token text PRIMARY KEY, name text)",
        "INSERT INTO catalog_pass VALUES ('abc124', 'somebody')",
        # As rest_framework.authtoken has it.
        "CREATE TABLE catalog_token (key text PRIMARY KEY, owner text)",
        "INSERT INTO catalog_token VALUES ('abc125', 'anybody')",
    )
    page = filled.get()
    assert "somebody hidden hidden" in page.text
    assert "hidden anybody" in page.text
    for secret in ("hunter2", "abc12", "pbkdf2", "boss", "auth_user", "django_session"):
        assert secret not in page.html


def test_the_last_of_three_attempts_says_that_the_tables_are_changing(
    filled: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.page.rows.LINKS", "SELECT * FROM catalog_gone_meanwhile")
    page = filled.get()
    assert page.status == 503
    assert "The tables are just being changed." in page.text


def test_without_tables_it_says_what_makes_them(seen: Seen) -> None:
    page = seen.get()
    assert page.status == 200
    assert "catalog has no tables here. %manage migrate catalog in a notebook makes them" in page.text
    assert "at zero , 2 pending" in page.text


def test_authors_with_their_books_as_the_database_has_them_at_each_migration(filled: Seen) -> None:
    text = filled.get().text
    assert "author 2 rows" in text
    assert "id name books bio created_at country" in text
    assert (
        "1 Ursula K. Le Guin Title 1 Title 2 Title 3 and 2 more '' 2024-05-06 07:08:09 United States" in text
    )
    assert "2 Italo Calvino none Cosmicomics" in text
    assert "book 5 rows" in text
    assert "1 Ursula K. Le Guin 2 Title 2" in text
    migrate("catalog", "0001", "--verbosity=0", using=ALIAS)
    text = filled.get().text
    assert "id name books bio created_at 1 Ursula" in text
    assert "at 0001_initial , 1 pending" in text
    filled.ask("ALTER TABLE catalog_author ADD COLUMN born date", "DROP TABLE catalog_book")
    assert "id name bio created_at born" in filled.get().text


def test_the_schema_is_what_snapshot_says(filled: Seen) -> None:
    text = filled.get().text
    for said in (
        "country varchar(100) NOT NULL",
        "primary key (id)",
        "foreign key (author_id) REFERENCES catalog_author(id) DEFERRABLE INITIALLY DEFERRED",
        "index btree (author_id)",
    ):
        assert said in text


def test_migrations_say_whether_they_are_applied_made_in_a_cell_or_without_a_file(filled: Seen) -> None:
    body = "from django.db import migrations\nclass Migration(migrations.Migration):\n"
    body += "    dependencies = [('catalog', '0002_author_country')]\n"
    evolved.write(connections[ALIAS], "catalog", "0003_cell", body)
    try:
        filled.ask(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('catalog', '0003_cell', now()), "
            "('catalog', '0009_lost', now())"
        )
        text = filled.get().text
    finally:
        evolved.remove(connections.databases[ALIAS])
    assert "0002_author_country applied" in text
    assert "Add field country to author" in text
    assert "at 0003_cell PostgreSQL" in text
    assert "made in a cell" in text
    assert "0009_lost is recorded as applied, and its file is gone." in text


def test_a_branch_is_shown_as_it_is_there(filled: Seen) -> None:
    create("try-out", using=ALIAS)
    filled.ask("DELETE FROM catalog_book")
    assert "Title 1" in filled.get(branch="try-out").text
    assert "Title 1" not in filled.get(branch="main").text
    assert "<title>try-out · catalog · Workbench</title>" in filled.get(branch="try-out").html


def test_a_million_rows_are_not_read_to_show_eight(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 200_000
    seen.ask(
        "CREATE TABLE catalog_shelf (id bigint PRIMARY KEY, name text)",
        "INSERT INTO catalog_shelf SELECT n, 'shelf ' || n FROM generate_series(1, 50) n",
        "CREATE TABLE catalog_item (id bigint PRIMARY KEY, title text, shelf_id bigint, lost_id bigint)",
        f"INSERT INTO catalog_item SELECT n, 'item ' || n, mod(n, 7), 1 FROM generate_series(1, {count}) n",
        "CREATE INDEX ON catalog_item (shelf_id)",
        "UPDATE catalog_item SET shelf_id = 1 WHERE shelf_id = 0",
        "ALTER TABLE catalog_item ADD FOREIGN KEY (shelf_id) REFERENCES catalog_shelf",
        "ALTER TABLE catalog_item ADD FOREIGN KEY (lost_id) REFERENCES catalog_shelf",
        "ANALYZE catalog_item",
        # What these have read is to be counted by now.
        "SELECT pg_stat_force_next_flush()",
    )
    read = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'catalog_item'"
    monkeypatch.setattr(import_module("workbench.schema.snapshot"), "COUNTED_BYTES", 1_000_000)
    connections[ALIAS].close()
    before = seen.ask("SELECT pg_stat_clear_snapshot()", read)[0]
    text = seen.get().text
    # Whose session is gone, what it has read is counted.
    until(lambda: seen.ask(LOOKING) == [(0,)])
    after = seen.ask("SELECT pg_stat_clear_snapshot()", read)[0]
    assert after[0] == before[0]
    assert after[1] - before[1] < 2000
    assert "item about 200,000 rows" in text
    assert "about 199,992 more rows" in text
    assert "item 200000" in text
    assert "and many more" in text
    # Nothing finds those quickly that refer to a shelf by the column without an index.
    assert "items by lost_id" not in text
    assert "item by lost_id" not in text


def test_a_look_takes_as_many_queries_whatever_is_there(
    filled: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queries() -> int:
        asked: list[str] = []
        make = glance_cursor
        monkeypatch.setattr(
            "workbench.connection.glance.base.DatabaseWrapper.create_cursor",
            lambda self, name=None: _Counting(make(self, name), asked),
        )
        assert filled.get().status == 200
        monkeypatch.undo()
        return len(asked)

    from workbench.connection.glance.base import DatabaseWrapper

    glance_cursor = DatabaseWrapper.create_cursor
    queries()  # The history is read once.
    few = queries()
    for number in range(20):
        columns = "id int PRIMARY KEY, of_id bigint UNIQUE REFERENCES catalog_author"
        filled.ask(f"CREATE TABLE catalog_more{number} ({columns})")
    assert queries() == few <= 20


class _Counting:
    def __init__(self, cursor: Any, asked: list[str]) -> None:
        self._cursor = cursor
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, query: Any, params: Any = None) -> Any:
        self._asked.append(str(query))
        return self._cursor.execute(query, params)


def test_where_nothing_is_otherwise_the_answer_is_304(filled: Seen) -> None:
    page = filled.get()
    etag = page.headers["ETag"]
    assert page.headers["Cache-Control"] == "no-store"
    same = filled.get(etag=etag, is_again=True)
    assert (same.status, same.html) == (304, "")
    filled.ask("UPDATE catalog_author SET country = 'Cuba' WHERE id = 2")
    other = filled.get(etag=etag, is_again=True)
    assert other.status == 200
    assert other.headers["ETag"] != etag


def test_a_page_that_looks_all_the_time_is_in_no_branchs_way(
    filled: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who looks here is as busy as who waits for it, and may stand still for as long as people would wait.
    monkeypatch.setattr(maintenance, "PATIENCE_SECONDS", 60.0)
    statuses: list[int] = []
    is_over = threading.Event()

    def look(branch: str) -> None:
        while not is_over.is_set():
            statuses.append(filled.get(branch=branch, is_again=True).status)
        connections.close_all()

    def go_on() -> None:
        shown = statuses.count(200)
        until(lambda: statuses.count(200) > shown + 20)

    create("other", using=ALIAS)
    viewers = [threading.Thread(target=look, args=[name]) for name in ("main", "other", "other")]
    for viewer in viewers:
        viewer.start()
    try:
        for number in range(4):
            create(f"try-{number}", using=ALIAS)
            reset("other", using=ALIAS)
            drop(f"try-{number}", using=ALIAS)
            go_on()
        drop("other", using=ALIAS)
        until(lambda: statuses.count(404) > 2)
    finally:
        is_over.set()
        for viewer in viewers:
            viewer.join()
    assert set(statuses) <= {200, 404, 503}
    assert statuses.count(503) < len(statuses) / 5
    until(lambda: filled.ask(LOOKING) == [(0,)])


def test_its_files_are_kept_by_a_browser_until_they_change(client: Client) -> None:
    page = client.get("/").content.decode()
    for name, kind in ASSETS.items():
        start = page.index(f"{name}?v=")
        response = client.get("/" + page[start : page.index('"', start)])
        assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
        assert "immutable" in response.headers["Cache-Control"]
        plain = client.get(f"/{name}", headers={"If-None-Match": response.headers["ETag"]})
        assert plain.status_code == 304
    assert client.get("/page.py").status_code == 404
