"""Branches that are databases beside the one of DATABASE_URL."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.db import connections
from psycopg2 import sql

from tests.branches.conftest import (
    ALIAS,
    TABLE,
    Place,
    administer,
    administrator,
    clear,
    databases,
)
from tests.schema.places import run
from tests.throwaway import HOME
from workbench import progress
from workbench.branches import (
    BranchError,
    branch,
    branches,
    copied,
    create,
    drop,
    maintenance,
    rename,
    reset,
    swept,
    use,
)
from workbench.branches import template as module
from workbench.connection import embedded, interrupt


@pytest.fixture
def root(place: Place) -> str:
    name: str = connections[ALIAS].settings_dict["NAME"]
    return name


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What sweeps have removed."""
    phrases: list[str] = []

    def tell(said: list[str], **_: Any) -> None:
        phrases.extend(said)

    swept.connect(tell)
    yield phrases
    swept.disconnect(tell)


@contextmanager
def other_session(database: str, **options: Any) -> Iterator[Any]:
    with closing(
        psycopg2.connect(
            dbname=database,
            user=embedded.ROLE,
            **{"application_name": "their notebook", **embedded.Cluster(HOME).address(), **options},
        )
    ) as connection:
        yield connection


def names() -> list[str]:
    return [each.name for each in branches(ALIAS) if not each.is_main]


ALONE: dict[str, tuple[str, Callable[..., Any]]] = {
    "create": ("", lambda **options: create("new", **options)),
    "a block": ("", lambda **options: branch("new", **options).__enter__()),
    "copied": ("", lambda **options: copied(**options).__enter__()),
    "reset": ("@try", lambda **options: reset("try", **options)),
    "drop": ("@try", lambda **options: drop("try", **options)),
    "rename": ("@try", lambda **options: rename("try", "new", **options)),
}


@pytest.mark.parametrize(("suffix", "verb"), ALONE.values(), ids=ALONE)
def test_sessions_of_others_are_named_and_only_ended_if_told_to(
    place: Place, root: str, suffix: str, verb: Callable[..., Any]
) -> None:
    create("try", using=ALIAS)
    with other_session(root + suffix) as theirs:
        pid = theirs.info.backend_pid
        said = (
            rf"^process {pid} \(their notebook, {embedded.ROLE}, idle for .*\) is connected to "
            rf"{root}{suffix}: close it, or end it with end_sessions=True\.$"
        )
        with pytest.raises(BranchError, match=said):
            verb(using=ALIAS)
        assert databases(root) == [root, f"{root}@try"]
        theirs.cursor().execute("SELECT 1")
        theirs.rollback()
        verb(using=ALIAS, end_sessions=True)
        with pytest.raises(psycopg2.OperationalError):
            theirs.cursor().execute("SELECT 1")
    assert place.count == 100


def test_many_sessions_are_one_sentence(place: Place, root: str) -> None:
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(other_session(root))
        with pytest.raises(
            BranchError, match=r", .* and 2 others are connected to .*: close them, or end them"
        ):
            create("new", using=ALIAS)


def test_who_comes_back_at_once_is_ended_again(place: Place, root: str) -> None:
    begun, stop = threading.Event(), threading.Event()

    def insist() -> None:
        while not stop.is_set():
            with suppress(psycopg2.Error), other_session(root) as theirs:
                begun.set()
                theirs.cursor().execute("SELECT pg_sleep(1)")

    thread = threading.Thread(target=insist)
    thread.start()
    assert begun.wait(10)
    create("new", using=ALIAS, end_sessions=True)
    stop.set()
    thread.join()
    assert names() == ["new"]


def test_among_notebooks_that_come_and_go_a_branch_is_made_and_none_is_ended(place: Place, root: str) -> None:
    stop = threading.Event()

    def work(number: int) -> None:
        """Be connected nearly always, as somebody who runs a cell now and then."""
        while not stop.is_set():
            with other_session(root, application_name=f"workbench: {number}.ipynb") as theirs:
                for _ in range(2):
                    theirs.cursor().execute("SELECT 1")
                    theirs.rollback()
                    stop.wait(0.2 + number / 10)

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work, number) for number in range(3)]
        try:
            create("new", using=ALIAS)
        finally:
            stop.set()
        for each in working:
            each.result()
    assert names() == ["new"]


def test_a_session_of_this_process_is_closed_if_it_is_idle_and_never_in_a_transaction(
    place: Place, root: str
) -> None:
    begin, begun, end = threading.Event(), threading.Event(), threading.Event()
    counts: list[int] = []

    def work() -> None:
        connection = connections[ALIAS]
        counts.append(place.count)
        interrupt.watched.add(connection)
        begun.set()
        assert begin.wait(10)
        counts.append(place.count)
        connection.cursor().execute("BEGIN")
        begun.set()
        assert end.wait(10)
        connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(10)
    begun.clear()
    create("first", using=ALIAS)
    begin.set()
    assert begun.wait(10)
    with pytest.raises(BranchError, match=r"^A transaction is open"):
        create("second", using=ALIAS)
    end.set()
    worker.join()
    assert counts == [100, 100]
    assert names() == ["first"]


def test_a_copy_that_takes_long_is_shown(
    place: Place, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    settings.WORKBENCH_PROGRESS = True
    monkeypatch.setattr(progress, "SECONDS_BEFORE_SHOWN", 0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.001)
    monkeypatch.setattr(progress, "make_show", lambda: lambda each: shown.append(str(each)))
    create("new", using=ALIAS)
    assert re.fullmatch(r"Copying main, \d+(\.\d)? MB, \d s", shown[0])


@contextmanager
def role(name: str, rights: str, owner_of: str | None = None) -> Iterator[dict[str, Any]]:
    """Give the settings of an alias for a new role."""
    administer(f"CREATE ROLE {{}} LOGIN {rights} PASSWORD 'x'", name)
    before = connections[ALIAS].settings_dict["USER"]
    try:
        if owner_of:
            administer("ALTER DATABASE {} OWNER TO {}", owner_of, name)
        connections[ALIAS].close()
        connections[ALIAS].settings_dict["USER"] = name
        yield connections[ALIAS].settings_dict
    finally:
        connections[ALIAS].close()
        connections.settings[ALIAS]["USER"] = before
        for database in databases(owner_of or "-"):
            administer("ALTER DATABASE {} OWNER TO {}", database, embedded.ROLE)
        administer("DROP ROLE {}", name)


@pytest.mark.parametrize(("rights", "is_owner"), [("", True), ("CREATEDB", False)])
def test_without_the_rights_it_is_one_sentence(place: Place, root: str, rights: str, is_owner: bool) -> None:
    with role("visitor", rights, root if is_owner else None):
        said = (
            r"^The role visitor may not do that \(.*\): branches need "
            r"ALTER ROLE visitor CREATEDB, and a database that is its own\.$"
        )
        with pytest.raises(BranchError, match=said):
            create("new", using=ALIAS)
    assert databases(root) == [root]


def test_a_role_that_may_connect_nowhere_else_is_told_what_it_needs(place: Place, root: str) -> None:
    with role("hermit", "CREATEDB", root):
        try:
            for database in ("postgres", "template1"):
                administer("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database)
            with pytest.raises(
                BranchError, match=r"neither to postgres nor to template1: grant it CONNECT on "
            ):
                create("new", using=ALIAS)
            assert len(create("blank", "empty", using=ALIAS).name) == 5
            drop("blank", using=ALIAS)
        finally:
            for database in ("postgres", "template1"):
                administer("GRANT CONNECT ON DATABASE {} TO PUBLIC", database)


def test_a_role_that_owns_its_database_and_may_create_others_needs_nothing_more(
    place: Place, root: str
) -> None:
    with role("owner", "CREATEDB", root):
        create("try", using=ALIAS)
        use("try", ALIAS)
        reset(using=ALIAS)
        rename("try", "fit", using=ALIAS)
        assert [each.bytes is not None for each in branches(ALIAS)] == [True, True]
        with branch("scratch", using=ALIAS), copied(ALIAS):
            pass
        drop(using=ALIAS)
    assert databases(root) == [root]


def test_a_process_killed_while_it_copies_leaves_nothing_that_the_next_call_does_not_remove(
    place: Place, root: str, told: list[str]
) -> None:
    create("try", using=ALIAS)
    place.ask("DELETE FROM thing WHERE id > 10")
    for code, left in (
        # What it was about to do, and how many rows the branch has then.
        ("die_before('ALTER'); create('new')", 100),
        ("die_before('ALTER'); reset('try')", 100),
        ("die_before('DROP'); reset('try')", 10),
        ("die_before('DROP'); create('new'); drop('new')", 10),
    ):
        assert place.run(code).returncode == -9, code
        place.wait_for_end()
        if "new" not in code or "ALTER" in code:
            assert len(databases(root)) == 3
            assert names() == ["try"]
            assert told.pop() == "a branch half made"
        else:
            drop("new", using=ALIAS)
        assert databases(root) == [root, f"{root}@try"]
        with other_session(f"{root}@try") as there, there.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM thing")
            assert cursor.fetchone() == (left,)
    assert told == []


def test_what_a_living_process_makes_is_left_alone_and_not_listed(
    place: Place, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "PATIENCE_SECONDS", 0.1)
    code = """
run = maintenance.Maintenance.run
def wait(self, statement, *names, **literals):
    if statement.startswith("ALTER"):
        print("made", flush=True)
        sys.stdin.readline()
    run(self, statement, *names, **literals)
maintenance.Maintenance.run = wait
create("new")
"""
    with place.start(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        assert names() == []
        assert len(databases(root)) == 2
        with pytest.raises(BranchError, match=r"^Somebody else is at work on a branch of this name"):
            create("new", using=ALIAS)
        process.communicate("\n", timeout=20)
        assert process.returncode == 0
    assert names() == ["new"]


def test_a_server_that_dies_under_it_is_one_sentence_and_the_next_call_removes_what_is_left(
    place: Place, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    tmp_path.chmod(0o755)
    other = Place({"DATABASE_URL": "", "WORKBENCH_HOME": str(home)})
    code = f"""
import psutil
from pathlib import Path
from workbench.connection import embedded
connection.cursor().execute("CREATE TABLE thing ()")
postmaster = embedded.Cluster(Path({str(home)!r})).postmaster()
run = maintenance.Maintenance.run
def crash(self, statement, *names, **literals):
    if statement.startswith("ALTER"):
        postmaster.send_signal(signal.SIGQUIT)
        postmaster.wait(10)
    run(self, statement, *names, **literals)
maintenance.Maintenance.run = crash
try:
    create("new")
except BranchError as error:
    print(error)
maintenance.Maintenance.run = run
swept.connect(lambda said, **_: print(said), weak=False)
print([each.name for each in branches()])
"""
    try:
        done = other.run(code)
    finally:
        embedded.stop(home)
    crash, removed, listed = done.stdout.splitlines()
    assert re.fullmatch(
        r"(The connection to Postgres was lost|Postgres ended this session).*\. Try again when the server is "
        r"back: what is half done goes then\.",
        crash,
    )
    assert (removed, listed) == ("['a branch half made']", "['main']")


def test_only_what_is_ours_is_listed_or_removed(place: Place, root: str, told: list[str]) -> None:
    create("try", using=ALIAS)
    create("broken", using=ALIAS)
    # By hand, and by somebody whose database is called like a branch.
    for name in (f"{root}@hand", f"{root}@tmp-mine", f"{root}@old@x"):
        administer("CREATE DATABASE {}", name)
    administer("COMMENT ON DATABASE {} IS '{{\"parent\": 1}}'", f"{root}@hand")
    invalid = "UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s"
    for name in ("broken", "hand"):
        with administrator() as cursor:
            cursor.execute(invalid, [f"{root}@{name}"])
    assert names() == ["try"]
    assert told == ["a branch half made"]
    with pytest.raises(BranchError, match=rf"^There is a database {root}@hand already: choose another name"):
        create("hand", using=ALIAS)
    assert databases(root) == [root, f"{root}@hand", f"{root}@old@x", f"{root}@tmp-mine", f"{root}@try"]
    clear(root)


def test_an_expired_branch_is_removed_when_nobody_is_on_it(place: Place, told: list[str]) -> None:
    create("long", expires=timedelta(hours=2), using=ALIAS)
    create("brief", expires=timedelta(milliseconds=1), using=ALIAS)
    assert told == []
    with other_session(f"{connections[ALIAS].settings_dict['NAME']}@brief"):
        assert names() == ["brief", "long"]
    assert repr(branches(ALIAS)).splitlines()[-1].endswith("in 2 h")
    assert re.fullmatch(r"brief, which expired < 1 min ago", told.pop())
    first = branches(ALIAS)["long"]
    again = reset("long", using=ALIAS)
    assert first.expires
    assert again.expires
    assert first.expires <= again.expires


def test_a_branch_outlives_its_parent_which_it_can_then_not_be_reset_to(place: Place) -> None:
    create("try", using=ALIAS)
    create("child", "try", using=ALIAS)
    drop("try", using=ALIAS)
    with pytest.raises(BranchError, match=r"^It was copied from try, which is gone: drop it, and create it "):
        reset("child", using=ALIAS)
    use("child", ALIAS)
    assert place.count == 100


def test_owner_rights_and_settings_come_along(place: Place, root: str) -> None:
    settings = {
        "search_path": '"$user", "odd "" name, x", public',
        "statement_timeout": "12345",
        "app.tenant": "it's \\ 100%",
        "DateStyle": "German",
    }
    administer("CREATE ROLE {}", "Reader's")
    administer("CREATE ROLE {}", "keeper")
    try:
        for name, value in settings.items():
            with administrator() as cursor:
                cursor.execute(
                    sql.SQL("ALTER DATABASE {} SET {} TO {}").format(
                        sql.Identifier(root),
                        sql.Identifier(*name.split(".")),
                        sql.SQL(value) if name == "search_path" else sql.Literal(value),
                    )
                )
        administer("ALTER DATABASE {} OWNER TO {}", root, "keeper")
        administer("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", root)
        administer("GRANT CONNECT, CREATE ON DATABASE {} TO {} WITH GRANT OPTION", root, "Reader's")
        administer("ALTER ROLE {} IN DATABASE {} SET work_mem TO '5MB'", "Reader's", root)
        facts = """
            SELECT pg_get_userbyid(datdba),
                   (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a),
                   (SELECT array_agg(ARRAY[setrole::text, setconfig::text] ORDER BY setrole)
                    FROM pg_db_role_setting WHERE setdatabase = d.oid)
            FROM pg_database d WHERE datname = %s
        """

        def read(database: str) -> Any:
            with administrator() as cursor:
                cursor.execute(facts, [database])
                return cursor.fetchone()

        create("try", using=ALIAS)
        create("blank", "empty", using=ALIAS)
        with copied(ALIAS) as copy:
            assert read(copy.settings_dict["NAME"]) == read(root)
        assert read(f"{root}@try") == read(f"{root}@blank") == read(root)
        administer("ALTER DATABASE {} RESET ALL", f"{root}@try")
        administer("ALTER DATABASE {} SET statement_timeout TO 54321", root)
        reset("try", using=ALIAS)
        assert read(f"{root}@try") == read(root)
    finally:
        for name in databases(root):
            administer("ALTER DATABASE {} OWNER TO {}", name, embedded.ROLE)
            administer("REVOKE ALL ON DATABASE {} FROM {}", name, "Reader's")
            administer("ALTER ROLE {} IN DATABASE {} RESET ALL", "Reader's", name)
            administer("ALTER DATABASE {} RESET ALL", name)
        administer("DROP ROLE {}, {}", "Reader's", "keeper")


@pytest.mark.parametrize("root_name", ['it\'s "a" 100% {shop} @ home;--', "Größe"])
def test_the_database_may_be_called_anything(place: Place, root: str, root_name: str) -> None:
    administer("CREATE DATABASE {}", root_name)
    try:
        connections.settings[ALIAS]["NAME"] = root_name
        run(*TABLE, using=ALIAS)
        create("try", using=ALIAS)
        use("try", ALIAS)
        place.ask("DELETE FROM thing")
        rename("try", "fit", using=ALIAS)
        reset(using=ALIAS)
        with branch("scratch", using=ALIAS):
            assert place.count == 100
        drop(using=ALIAS)
        assert (place.count, databases(root_name)) == (100, [root_name])
    finally:
        connections[ALIAS].close()
        connections.settings[ALIAS]["NAME"] = root
        clear(root_name)
        administer("DROP DATABASE {}", root_name)


def test_a_name_is_never_cut_off(place: Place, root: str) -> None:
    longest = "x" * (63 - len(root) - 1)
    assert create(longest, using=ALIAS).name == longest
    for name in (longest + "x", "ö" * (len(longest) // 2 + 1)):
        with pytest.raises(BranchError, match=r" is too long by [12] bytes?: the name of a database, here "):
            create(name, using=ALIAS)
        with pytest.raises(BranchError, match="is too long by"):
            rename(longest, name, using=ALIAS)
    assert names() == [longest]


def race(place: Place, code: str) -> list[str]:
    """Run code in two processes at once, and return what each prints."""
    racing = [place.start(f"print('ready', flush=True); sys.stdin.readline()\n{code}") for _ in range(2)]
    for process in racing:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    printed = []
    for process in racing:
        output, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        printed.append(output.strip())
    place.wait_for_end()
    return sorted(printed)


@pytest.mark.parametrize("verb", ["create('new')", "block.__enter__()"])
def test_of_two_processes_one_makes_it_and_the_other_says_so(place: Place, root: str, verb: str) -> None:
    code = f"""
block = branch("new")
try:
    {verb}
except BranchError as error:
    print(error)
else:
    print("made")
    time.sleep(0.5)
"""
    refused, made = race(place, code)
    assert made == "made"
    assert re.match(r"There is a (branch|database) |Somebody else is at work on ", refused)
    assert names() in (["new"], [])
    assert len(databases(root)) == 1 + len(names())


def test_two_processes_may_sweep_at_once(place: Place, root: str) -> None:
    for digit in range(3):
        administer("CREATE DATABASE {}", f"{root}@tmp-00000000000{digit}")
    code = """
swept.connect(lambda said, **_: print(len(said)), weak=False)
assert len(branches()) == 1
"""
    assert sum(int(printed or 0) for printed in race(place, code)) == 3
    assert databases(root) == [root]


def test_a_big_one_is_copied_by_its_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_COPY_BYTES", 1_000_000)
    with branch("scratch", using=ALIAS):
        assert place.count == 100
