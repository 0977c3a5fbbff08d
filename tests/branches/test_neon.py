"""Neon's kind of branches, against an API that does what it should, and one that does not."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.branches.neon_api import KEY, MAIN, PROJECT, ROLE, Place, neon_place
from tests.throwaway import PROJECT as FOLDER
from tests.throwaway import environment
from workbench.branches.claims import claimed, session
from workbench.branches.errors import BranchError
from workbench.branches.kind import EMPTY, Branch
from workbench.branches.neon import Neon
from workbench.redaction import MASK, redacted

TABLES = """
CREATE TABLE note (id serial PRIMARY KEY, text text);
INSERT INTO note (text) VALUES ('a'), ('b')
"""
NOTES = [(1, "a"), (2, "b")]
STABLE = "br-stable-000001"

PRODUCTION = Branch("production", is_main=True, is_guarded=True, key=MAIN)
BRANCH = Branch("stable", "production", key=STABLE)

ALWAYS = 99
# Instead of what is to be said, where it succeeds in the end.
DONE = ""


@pytest.fixture(scope="module")
def project() -> Iterator[Place]:
    with neon_place() as place:
        place.server.run(TABLES, database=place.database, user=ROLE)
        yield place


@pytest.fixture
def place(project: Place) -> Iterator[Place]:
    """A project with the branches production and stable, of which the former nobody may change."""
    before = project.checksum()
    if STABLE not in project.branches:
        project.add(STABLE, "stable", MAIN)
    yield project
    written = project.written()
    project.clear(*{STABLE}.difference(written))
    assert MAIN not in written
    assert project.checksum() == before
    assert project.complaints == []


def all_(neon: Neon, place: Place) -> None:
    assert [each.name for each in neon.all()] == ["production", "stable"]


def create(neon: Neon, place: Place) -> None:
    made = neon.create("fresh", PRODUCTION, expires=None, end_sessions=False)
    assert (made.name, made.parent) == ("fresh", "production")
    assert place.rows("SELECT * FROM note", made.key) == NOTES
    assert sorted(place.names()) == ["fresh", "production", "stable"]


def create_empty(neon: Neon, place: Place) -> None:
    made = neon.create("fresh", None, expires=None, end_sessions=False)
    assert (made.name, made.parent) == ("fresh", EMPTY)
    assert place.rows("SELECT * FROM pg_tables WHERE schemaname = 'public'", made.key) == []
    assert sorted(place.names()) == ["fresh", "production", "stable"]


def fleeting(neon: Neon, place: Place) -> None:
    with neon.fleeting("fresh", BRANCH, end_sessions=False) as made:
        assert made.is_fleeting
        assert place.rows("SELECT * FROM note", made.key) == NOTES
    assert sorted(place.names()) == ["production", "stable"]


def reset(neon: Neon, place: Place) -> None:
    place.server.run("DELETE FROM note", database=place.branches[STABLE]["_database"])
    assert neon.reset(BRANCH, end_sessions=False).name == "stable"
    assert place.rows("SELECT * FROM note", STABLE) == NOTES


def drop(neon: Neon, place: Place) -> None:
    neon.drop(BRANCH, end_sessions=False)
    assert place.names() == ["production"]


def rename(neon: Neon, place: Place) -> None:
    assert neon.rename(BRANCH, "renamed", end_sessions=False).name == "renamed"
    assert place.names() == ["production", "renamed"]


def settings(neon: Neon, place: Place) -> None:
    entry = neon.settings(BRANCH)
    assert entry["HOST"].startswith("ep-stable-")
    assert entry["PASSWORD"] == place.passwords[STABLE]
    # It is new, and known from now on.
    assert redacted(f"{place.passwords[STABLE]}, {entry}") == f"{MASK}, {entry}"
    assert rows(entry, "SELECT * FROM note") == NOTES


def sweep(neon: Neon, place: Place) -> None:
    if "left" not in place.names():
        place.add("br-left-000002", "left", MAIN)
        place.notes["br-left-000002"] = {"workbench": "fleeting", "token": "0123456789ab"}
    assert neon.sweep() == ["left, whose process is gone"]
    assert place.names() == ["production", "stable"]


# What is done, the call that goes wrong, how and how often; and what is said.
FIFTY: list[tuple[Callable[[Neon, Place], None], str, str, int, str]] = [
    (all_, "list", "locked", 1, DONE),
    (all_, "list", "limited", 2, DONE),
    (all_, "list", "limited", ALWAYS, "wait a minute"),
    (all_, "list", "unavailable", ALWAYS, "out of order (503"),
    (all_, "list", "broken", 1, DONE),
    (all_, "list", "broken", ALWAYS, "out of order (500: internal server error)"),
    (all_, "list", "gateway", ALWAYS, "out of order (502: Bad Gateway)"),
    (all_, "list", "slow", 1, DONE),
    (all_, "list", "slow", ALWAYS, "no usable answer (timed out)"),
    (all_, "list", "unheard", 1, DONE),
    (all_, "list", "unheard", ALWAYS, "no usable answer (Server disconnected"),
    (all_, "list", "truncated", 1, DONE),
    (all_, "list", "truncated", ALWAYS, "what it says to GET branches cannot be understood"),
    (all_, "list", "unauthorized", ALWAYS, "does not accept NEON_API_KEY"),
    (all_, "list", "forbidden", ALWAYS, "NEON_API_KEY may not do that"),
    (all_, "list", "missing", ALWAYS, "check NEON_PROJECT_ID"),
    (all_, "list", "empty", ALWAYS, "does not list the branch that DATABASE_URL leads to"),
    (all_, "list", "bare", ALWAYS, "cannot be understood"),
    (all_, "list", "sparse", ALWAYS, DONE),
    (all_, "list", "novel", ALWAYS, DONE),
    (all_, "endpoints", "empty", ALWAYS, "set NEON_PROJECT_ID to the project of DATABASE_URL"),
    (all_, "endpoints", "novel", ALWAYS, DONE),
    (create, "create", "locked", 1, DONE),
    (create, "create", "locked", ALWAYS, "still works on something else"),
    (create, "create", "broken", 1, DONE),
    (create, "create", "broken", ALWAYS, "out of order (500"),
    (create, "create", "slow", 1, DONE),
    (create, "create", "unheard", 1, DONE),
    (create, "create", "unanswered", 1, DONE),
    (create, "create", "bare", 1, DONE),
    (create, "create", "sparse", 1, DONE),
    (create, "create", "novel", 1, DONE),
    (create, "create", "conflict", 1, "refuses that (409: branch already exists)"),
    (create, "create", "unauthorized", 1, "does not accept NEON_API_KEY"),
    (create, "create", "failing", 1, "could not create branch (failed: no compute to be had)"),
    (create, "create", "endless", 1, "did not create branch in 0 seconds"),
    (create, "operation", "broken", 2, DONE),
    (create, "operation", "bare", 1, DONE),
    (create, "operation", "missing", ALWAYS, "no such thing"),
    (create, "list", "empty", ALWAYS, DONE),
    (create, "rename", "unanswered", 1, DONE),
    (create, "rename", "conflict", 1, "There is a branch fresh already"),
    (create, "rename", "broken", ALWAYS, "out of order"),
    (create_empty, "endpoints", "empty", 1, "set NEON_PROJECT_ID"),
    (create_empty, "uri", "unheard", 1, DONE),
    (create_empty, "uri", "astray", 1, "the address of DATABASE_URL for tmp-"),
    (fleeting, "create", "bad", 1, DONE),
    (fleeting, "delete", "locked", 1, DONE),
    (fleeting, "delete", "unanswered", 1, DONE),
    (fleeting, "delete", "broken", ALWAYS, "out of order"),
    (reset, "restore", "locked", 1, DONE),
    (reset, "restore", "slow", 1, DONE),
    (reset, "restore", "unheard", 1, DONE),
    (reset, "restore", "unanswered", 1, DONE),
    (reset, "restore", "truncated", 1, DONE),
    (reset, "restore", "broken", ALWAYS, "out of order"),
    (reset, "restore", "failing", 1, "could not timeline archive (failed: no compute to be had)"),
    (reset, "endpoints", "empty", 1, "set NEON_PROJECT_ID"),
    (
        reset,
        "read",
        "undefended",
        1,
        "stable is the branch of DATABASE_URL, the project's default, or protected",
    ),
    (reset, "read", "missing", 1, "no branch stable any more"),
    (drop, "delete", "locked", 1, DONE),
    (drop, "delete", "unheard", 1, DONE),
    (drop, "delete", "unanswered", 1, DONE),
    (drop, "delete", "slow", 1, DONE),
    (drop, "delete", "truncated", 1, DONE),
    (drop, "delete", "bare", 1, DONE),
    (drop, "delete", "missing", 1, "no such thing"),
    (drop, "delete", "failing", 1, "could not delete timeline"),
    (drop, "read", "undefended", 1, "is left alone"),
    (drop, "endpoints", "unavailable", ALWAYS, "out of order"),
    (rename, "rename", "unheard", 1, DONE),
    (rename, "rename", "unanswered", 1, DONE),
    (rename, "rename", "bare", 1, DONE),
    (rename, "rename", "conflict", 1, "There is a branch renamed already"),
    (rename, "read", "undefended", 1, "is left alone"),
    (settings, "uri", "limited", 1, DONE),
    (settings, "uri", "truncated", 1, DONE),
    (settings, "uri", "missing", ALWAYS, "no such thing"),
    (settings, "uri", "bare", ALWAYS, "cannot be understood"),
    (settings, "uri", "blank", 1, "no address for stable that can be read"),
    (settings, "uri", "astray", 1, "the address of DATABASE_URL for stable"),
    (sweep, "list", "broken", ALWAYS, "out of order"),
    (sweep, "delete", "locked", 1, DONE),
    (sweep, "delete", "unanswered", 1, DONE),
]


@pytest.mark.parametrize(
    ("verb", "call", "how", "times", "says"),
    FIFTY,
    ids=lambda value: value.__name__ if callable(value) else str(value).partition(" ")[0],
)
def test_fifty_misbehaviours_end_well_or_in_one_sentence_after_which_the_next_try_succeeds(
    place: Place,
    caplog: pytest.LogCaptureFixture,
    verb: Callable[[Neon, Place], None],
    call: str,
    how: str,
    times: int,
    says: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    neon = place.neon(patience=0.2, timeout=0.3 if how == "slow" else 10.0)
    place.misbehave(call, how, times)
    shown = [repr(neon), repr(neon.api), repr(vars(neon.api)["_http"])]
    if says == DONE:
        verb(neon, place)
    else:
        with pytest.raises(BranchError) as caught:
            verb(neon, place)
        said = str(caught.value)
        assert says in said
        assert is_one_sentence(said)
        shown += told(caught.value)
        place.behave()
        neon.sweep()
        assert "fresh" not in place.names()
        assert not [name for name in place.names() if name.startswith("tmp-")]
        verb(neon, place)
    for secret in place.secrets:
        assert secret not in "\n".join([*shown, caplog.text])


@pytest.mark.parametrize("guard", ["default", "protected"])
@pytest.mark.parametrize("parent", ["production", EMPTY])
def test_a_branch_that_became_guarded_since_it_was_listed_is_not_written_to(
    place: Place, parent: str, guard: str
) -> None:
    place.branches[STABLE][guard] = True
    neon, branch = place.neon(), dataclasses.replace(BRANCH, parent=parent)
    for verb in (neon.reset, neon.drop, partial(neon.rename, name="other")):
        with pytest.raises(BranchError, match=r"stable is .* left alone"):
            verb(branch, end_sessions=False)
    assert place.written() == []
    assert place.rows("SELECT * FROM note", STABLE) == NOTES


def test_the_branch_of_database_url_is_not_written_to_even_if_it_is_neither_default_nor_protected(
    place: Place,
) -> None:
    neon = place.neon()
    place.branches[MAIN]["default"] = False
    place.branches[STABLE]["default"] = True
    production, stable = neon.all()
    assert (production.is_main, production.is_guarded) == (True, True)
    assert (stable.is_main, stable.is_guarded) == (False, True)
    for main in (production, dataclasses.replace(production, is_main=False, is_guarded=False)):
        for verb in (neon.reset, neon.drop, partial(neon.rename, name="other")):
            with pytest.raises(BranchError, match="left alone"):
                verb(main, end_sessions=False)
    assert place.written() == []


def test_a_branch_without_an_id_leads_nowhere_and_not_to_the_default_one(place: Place) -> None:
    neon = place.neon()
    lost = Branch("stable", "production")
    for verb in (
        lambda: neon.settings(lost),
        lambda: neon.create("fresh", lost, expires=None, end_sessions=False),
        lambda: neon.drop(lost, end_sessions=False),
    ):
        with pytest.raises(BranchError, match="without an id"):
            verb()
    assert place.names() == ["production", "stable"]


def test_a_host_that_no_branch_of_the_project_has_is_said(place: Place) -> None:
    entry = {**place.entry, "HOST": "ep-other-123456.us-east-2.aws.neon.tech"}
    neon = Neon(entry, key=KEY, project=PROJECT, url=place.api_url)
    with pytest.raises(BranchError, match=r"no branch at ep-other-123456\..*NEON_PROJECT_ID"):
        neon.all()


def test_a_name_that_somebody_elses_branch_has_is_taken(place: Place) -> None:
    neon = place.neon()
    with pytest.raises(BranchError, match="There is a branch stable already"):
        neon.create("stable", PRODUCTION, expires=None, end_sessions=False)
    with pytest.raises(BranchError, match="There is a branch production already"):
        neon.rename(BRANCH, "production", end_sessions=False)
    assert place.names() == ["production", "stable"]
    assert [call for call, _ in place.asked].count("create") == 0


def test_of_two_that_create_the_same_name_at_once_one_gets_it_and_the_other_leaves_nothing(
    place: Place,
) -> None:
    said: list[str] = []

    def run() -> None:
        try:
            said.append(place.neon().create("fresh", PRODUCTION, expires=None, end_sessions=False).name)
        except BranchError as error:
            said.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said)[1] == "fresh"
    assert sorted(said)[0].startswith("There is a branch fresh already")
    assert sorted(place.names()) == ["fresh", "production", "stable"]


def test_a_branch_whose_answer_was_lost_is_known_again_when_a_new_try_meets_it(place: Place) -> None:
    place.misbehave("create", "unanswered")
    place.misbehave("list", "well")
    place.misbehave("list", "empty")
    create(place.neon(), place)
    assert [call for call, _ in place.asked].count("create") == 2


@pytest.mark.parametrize("name", ["", "a" * 257, "a\nb"])
def test_names_that_neon_would_not_take_are_not_sent(place: Place, name: str) -> None:
    with pytest.raises(BranchError, match="1 to 256 characters"):
        place.neon().create(name, PRODUCTION, expires=None, end_sessions=False)
    assert place.asked == []


@pytest.mark.parametrize("left", [timedelta(days=30, minutes=1), timedelta(seconds=-1)])
def test_a_branch_expires_within_thirty_days(place: Place, left: timedelta) -> None:
    with pytest.raises(BranchError, match="within 30 days"):
        place.neon().create("fresh", PRODUCTION, expires=datetime.now(UTC) + left, end_sessions=False)
    assert place.names() == ["production", "stable"]


def test_where_branches_cannot_expire_only_one_that_was_asked_to_is_refused(place: Place) -> None:
    neon = place.neon()
    place.expiry_is_known = False
    expires = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(BranchError, match=r"Early Access Program\): create it without an expiry"):
        neon.create("fresh", PRODUCTION, expires=expires, end_sessions=False)
    with neon.fleeting("fresh", PRODUCTION, end_sessions=False) as made:
        assert made.expires is None


def test_a_branch_that_expires_is_not_copied_and_that_is_said(place: Place) -> None:
    neon = place.neon()
    expires = datetime.now(UTC) + timedelta(hours=1)
    passing = neon.create("passing", PRODUCTION, expires=expires, end_sessions=False)
    with pytest.raises(BranchError, match=r"does not copy passing, which expires .*: create a branch of one"):
        neon.create("fresh", passing, expires=None, end_sessions=False)
    with (
        pytest.raises(BranchError, match="does not copy passing, which expires"),
        neon.fleeting("fresh", passing, end_sessions=False),
    ):
        pass
    assert sorted(place.names()) == ["passing", "production", "stable"]


def test_what_somebody_is_making_is_not_swept(place: Place) -> None:
    # Which leaves a moment before it gets its name.
    place.misbehave("rename", "limited")
    making = threading.Thread(target=create, args=[place.neon(longest_delay=0.4), place])
    making.start()
    wait_until(lambda: any(call == "rename" for call, _ in place.asked))
    assert place.neon().sweep() == []
    making.join()
    assert sorted(place.names()) == ["fresh", "production", "stable"]


def test_a_branch_that_others_were_made_from_is_kept_and_they_are_named(place: Place) -> None:
    neon = place.neon()
    child = neon.create("child", BRANCH, expires=None, end_sessions=False)
    with pytest.raises(BranchError, match=r"stable cannot be dropped while .*: first drop child\."):
        neon.drop(BRANCH, end_sessions=False)
    with pytest.raises(BranchError, match=r"stable cannot be reset while .*: first drop child\."):
        neon.reset(BRANCH, end_sessions=False)
    neon.drop(child, end_sessions=False)
    neon.drop(BRANCH, end_sessions=False)
    assert place.names() == ["production"]


def test_what_goes_wrong_on_a_fleeting_branch_is_what_is_raised_though_it_cannot_be_dropped(
    place: Place,
) -> None:
    neon = place.neon()
    place.misbehave("delete", "broken", ALWAYS)
    with pytest.raises(ZeroDivisionError), neon.fleeting("fresh", PRODUCTION, end_sessions=False):
        _ = 1 / 0
    assert "fresh" in place.names()
    place.behave()
    assert neon.sweep() == ["fresh, whose process is gone"]
    assert neon.sweep() == []


def test_the_fleeting_branch_of_a_living_process_stays_and_that_of_a_killed_one_is_swept(
    place: Place,
) -> None:
    program = """if True:
        import django, os, sys
        django.setup()
        from workbench.branches.kind import Branch
        from workbench.branches.neon import Neon
        from workbench.connection import database
        key, project, url = (os.environ[f"NEON_{name}"] for name in ("API_KEY", "PROJECT_ID", "API_URL"))
        neon = Neon(database(os.environ, home=None), key=key, project=project, url=url)
        neon.api.pace = 0.01
        with neon.fleeting("theirs", neon.all()[0], end_sessions=False) as made:
            print(made.name, flush=True)
            sys.stdin.read()
    """
    theirs = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=FOLDER,
        env=environment(place.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with theirs:
        assert theirs.stdout is not None
        assert theirs.stdout.readline() == "theirs\n"
        neon = place.neon()
        assert neon.sweep() == []
        assert [each.is_fleeting for each in neon.all()] == [False, False, True]
        theirs.kill()
    wait_until(lambda: neon.sweep() == ["theirs, whose process is gone"])
    assert place.names() == ["production", "stable"]


def test_a_branch_half_made_is_not_listed_and_swept_unless_somebody_is_at_it(place: Place) -> None:
    neon = place.neon()
    token = "0123456789ab"
    place.add("br-half-000003", f"tmp-{token}", MAIN)
    place.notes["br-half-000003"] = {"workbench": "kept", "token": token}
    assert [each.name for each in neon.all()] == ["production", "stable"]
    with claimed(place.entry, token):
        assert neon.sweep() == []
    assert neon.sweep() == ["a branch half made"]
    assert place.names() == ["production", "stable"]


def test_a_branch_that_only_looks_like_one_of_ours_is_somebodys(place: Place) -> None:
    place.add("br-half-000003", "tmp-0123456789ab", MAIN)
    place.notes["br-half-000003"] = {"vercel-commit-ref": "main", "token": "0123456789ab"}
    neon = place.neon()
    assert neon.sweep() == []
    assert [each.name for each in neon.all()] == ["production", "stable", "tmp-0123456789ab"]


def test_a_fleeting_branch_can_be_copied_in_turn_and_both_go(place: Place) -> None:
    neon = place.neon()
    with neon.fleeting("outer", PRODUCTION, end_sessions=False) as outer:
        place.server.run(
            "INSERT INTO note (text) VALUES ('c')", database=place.branches[outer.key]["_database"]
        )
        with neon.fleeting("tmp-0123456789ab", outer, end_sessions=False) as inner:
            assert place.rows("SELECT * FROM note", inner.key) == [*NOTES, (3, "c")]
            # A copy for a moment is nobody's to go to.
            assert [each.name for each in neon.all()] == ["production", "outer", "stable"]
    assert place.names() == ["production", "stable"]


def test_what_two_processes_left_goes_the_younger_first(place: Place) -> None:
    for number, parent in enumerate((MAIN, "br-left-0", "br-left-1")):
        place.add(f"br-left-{number}", f"left {number}", parent)
        place.notes[f"br-left-{number}"] = {"workbench": "fleeting", "token": f"{number}"}
    assert place.neon().sweep() == [f"left {number}, whose process is gone" for number in (2, 1, 0)]


def test_branches_are_listed_over_all_pages_with_what_is_known_of_them(place: Place) -> None:
    neon = place.neon()
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    neon.create("passing", BRANCH, expires=expires, end_sessions=False)
    neon.create("blank", None, expires=None, end_sessions=False)
    place.branches[STABLE]["protected"] = True
    found = neon.all()
    assert [(each.name, each.parent) for each in found] == [
        ("production", ""),
        ("blank", EMPTY),
        ("passing", "stable"),
        ("stable", "production"),
    ]
    assert [each.is_main for each in found] == [True, False, False, False]
    assert [each.is_guarded for each in found] == [True, False, False, True]
    assert [each.expires for each in found] == [None, None, expires, None]
    assert all(each.created and each.created.tzinfo and each.bytes == 7_700_000 for each in found)


def test_an_empty_branch_is_reset_to_an_empty_one_whoever_is_connected(place: Place) -> None:
    neon = place.neon()
    made = neon.create("blank", None, expires=None, end_sessions=False)
    with closing(session(neon.settings(made))) as connection:
        connection.cursor().execute("CREATE TABLE note (id int)")
        assert neon.reset(made, end_sessions=True).parent == EMPTY
    assert place.rows("SELECT * FROM pg_tables WHERE schemaname = 'public'", made.key) == []


def test_a_branch_takes_over_what_database_url_says_about_safety_and_nothing_that_leads_to_its_server(
    place: Place,
) -> None:
    entry = place.entry
    entry["ATOMIC_REQUESTS"] = True
    entry["OPTIONS"] |= {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ca.pem",
        "hostaddr": "192.0.2.1",
        "options": "-c search_path=app",
    }
    made = Neon(entry, key=KEY, project=PROJECT, url=place.api_url).settings(BRANCH)
    assert made["ATOMIC_REQUESTS"]
    assert made["OPTIONS"]["sslmode"] == "verify-full"
    assert made["OPTIONS"]["sslrootcert"] == "/etc/ca.pem"
    assert made["OPTIONS"]["options"] == "-c search_path=app"
    assert made["OPTIONS"]["hostaddr"] == "127.0.0.1"
    entry["OPTIONS"]["options"] = "endpoint=ep-main-000000"
    made = Neon(entry, key=KEY, project=PROJECT, url=place.api_url).settings(BRANCH)
    assert "options" not in made["OPTIONS"]


def test_main_is_where_database_url_leads_by_whichever_of_its_hosts(place: Place) -> None:
    pooled = {**place.entry, "HOST": place.entry["HOST"].replace(".", "-pooler.", 1)}
    for entry in (place.entry, pooled):
        neon = Neon(entry, key=KEY, project=PROJECT, url=place.api_url)
        main = neon.all()[0]
        assert (main.name, main.is_main) == ("production", True)
        assert neon.settings(main) == entry


def wait_until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told(error: BaseException | None) -> list[str]:
    """Return all that a log or a debugger would show of an error, and of those that led to it."""
    shown = []
    while error is not None:
        shown += [repr(error), *traceback.format_exception(error, chain=False), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return shown


def is_one_sentence(said: str) -> bool:
    return "\n" not in said and said.endswith(".") and ": " in said and len(said) < 400


def rows(entry: dict[str, Any], query: str) -> list[tuple[Any, ...]]:
    with closing(session(entry)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found
