"""What people do with branches, the same on every kind of server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import connections, transaction

from tests.branches.conftest import KINDS, Place
from tests.conftest import Manage
from workbench import evolved
from workbench.branches import (
    BranchError,
    branch,
    branches,
    connected,
    copied,
    create,
    drop,
    here,
    moved,
    rename,
    reset,
    swept,
    use,
)
from workbench.connection import ConnectionFailed, where

pytestmark = pytest.mark.parametrize("prepared", list(KINDS), indirect=True, scope="module")


def names(place: Place) -> list[str]:
    return [each.name for each in branches(place.using) if not each.is_main]


def test_a_branch_that_is_not_there_is_one_sentence_and_nothing_happens(place: Place) -> None:
    create("otter", using=place.using)
    verbs: list[Callable[[], Any]] = [
        lambda: use("other", place.using),
        lambda: reset("other", using=place.using),
        lambda: drop("other", using=place.using),
        lambda: rename("other", "another", using=place.using),
        lambda: create("new", "other", using=place.using),
        lambda: connected("other", place.using).__enter__(),
        lambda: branch("new", parent="other", using=place.using).__enter__(),
    ]
    for verb in verbs:
        with pytest.raises(BranchError, match=r"^There is no branch other: did you mean otter\?$"):
            verb()
    assert names(place) == ["otter"]
    assert where(place.using).branch == ""


def test_a_name_that_cannot_be_is_one_sentence(place: Place) -> None:
    verbs: list[Callable[[str], Any]] = [
        lambda name: create(name, using=place.using),
        lambda name: branch(name, using=place.using).__enter__(),
        lambda name: rename("x", name, using=place.using),
    ]
    for name in ("", "main", "empty", "a b", "-a", "a@b", "a'b", 'a"b', "tmp-0123456789ab", "a\n", "/a"):
        for verb in verbs:
            with pytest.raises(
                BranchError, match=r"cannot be a branch's name: use letters, digits and \. _ - /"
            ):
                verb(name)
    assert names(place) == []


def test_the_main_one_is_never_reset_dropped_or_renamed(place: Place) -> None:
    verbs: list[Callable[[], Any]] = [
        lambda: reset(using=place.using),
        lambda: drop("main", using=place.using),
        lambda: rename("main", "other", using=place.using),
    ]
    for verb in verbs:
        with pytest.raises(BranchError, match=r"is never (reset|dropped|renamed): give the name"):
            verb()
    assert place.count == 100


def test_what_is_there_already_stays_as_it_is(place: Place) -> None:
    made = create("try", using=place.using)
    use("try", using=place.using)
    connections[place.using].cursor().execute("DELETE FROM thing")
    for parent in (None, "main"):
        again = create("try", parent, using=place.using)
        assert (again.name, again.parent, again.key) == (made.name, made.parent, made.key)
    assert place.count == 0


def test_a_name_is_given_once(place: Place) -> None:
    create("try", using=place.using)
    create("other", using=place.using)
    there = r"^There is a branch try already: python manage\.py branch drop try removes it\.$"
    with pytest.raises(BranchError, match=there):
        create("try", "other", using=place.using)
    with pytest.raises(BranchError, match=there):
        rename("other", "try", using=place.using)
    with pytest.raises(BranchError, match=there), branch("try", using=place.using):
        pass
    assert names(place) == ["other", "try"]


OPEN: dict[str, Callable[[str], Any]] = {
    "a block": lambda using: transaction.atomic(using).__enter__(),
    "no autocommit": lambda using: transaction.set_autocommit(False, using),
    "BEGIN": lambda using: connections[using].cursor().execute("BEGIN"),
}


@pytest.mark.parametrize("begin", OPEN.values(), ids=OPEN)
def test_in_an_open_transaction_nobody_goes_elsewhere(place: Place, begin: Callable[[str], Any]) -> None:
    create("try", using=place.using)
    begin(place.using)
    place.ask("DELETE FROM thing WHERE id = 1")
    said = r"^A transaction is open: commit it or roll it back first\.$"
    with pytest.raises(BranchError, match=said):
        use("try", place.using)
    with pytest.raises(BranchError, match=said), branch("scratch", using=place.using):
        pass
    with pytest.raises(BranchError, match=said), copied(place.using):
        pass
    assert place.count == 99
    assert where(place.using).branch == ""


def test_a_branch_is_a_copy_and_what_happens_there_stays_there(place: Place) -> None:
    made = create("feature/try_1.2-x", using=place.using)
    main = here(place.using)
    assert (made.parent, main.is_main, main.parent) == (main.name, True, "")
    place.ask("DELETE FROM thing WHERE id > 10")
    use(made.name, place.using)
    assert place.count == 100
    assert where(place.using).branch == made.name == here(place.using).name
    place.ask("DROP TABLE thing")
    child = create("child", using=place.using)
    assert child.parent == made.name
    use("main", place.using)
    assert place.count == 10
    assert where(place.using).branch == ""
    with connected("child", place.using) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('thing')")
        assert cursor.fetchone() == (None,)
    assert {each.name: each.parent for each in branches(place.using)} == {
        main.name: "",
        "child": made.name,
        made.name: main.name,
    }


def test_a_list_says_how_big_and_how_old_they_are_and_where_one_is(place: Place) -> None:
    create("try", using=place.using)
    use("try", place.using)
    found = branches(place.using)
    head, main, line = repr(found).splitlines()
    assert head.split() == ["branch", "parent", "size", "age", "expires"]
    assert main.split()[0] == found["main"].name
    assert line.split()[:3] == ["*", "try", found["main"].name]
    assert re.search(r"\d MB  < 1 min$", line)


def test_an_empty_branch_has_no_tables_and_is_emptied_by_a_reset(place: Place) -> None:
    made = create("blank", "empty", using=place.using)
    assert made.parent == "empty"
    use("blank", place.using)
    assert place.ask("SELECT to_regclass('thing')") is None
    place.ask("CREATE TABLE thing ()")
    assert reset(using=place.using).parent == "empty"
    assert place.ask("SELECT to_regclass('thing')") is None


def test_a_reset_makes_it_what_its_parent_is_now(place: Place) -> None:
    create("try", using=place.using)
    use("try", place.using)
    place.ask("DROP TABLE thing")
    use("main", place.using)
    place.ask("DELETE FROM thing WHERE id > 10")
    use("try", place.using)
    made = reset(using=place.using)
    assert place.count == 10
    assert made.name == here(place.using).name == "try"
    assert names(place) == ["try"]


def test_who_is_on_a_branch_stays_on_it_by_its_new_name_and_is_on_main_when_it_is_dropped(
    place: Place,
) -> None:
    create("try", using=place.using)
    use("try", place.using)
    place.ask("DELETE FROM thing WHERE id > 50")
    create("child", using=place.using)
    assert rename("try", "fit", using=place.using).name == "fit"
    assert (place.count, where(place.using).branch, names(place)) == (50, "fit", ["child", "fit"])
    place.ask("DELETE FROM thing WHERE id > 20")
    reset("child", using=place.using)
    use("child", place.using)
    assert place.count == 20
    drop("child", using=place.using)
    assert (place.count, where(place.using).branch, names(place)) == (100, "", ["fit"])
    use("fit", place.using)
    assert drop(using=place.using).name == "fit"
    assert (place.count, where(place.using).branch, names(place)) == (100, "", [])


def test_every_thread_goes_along(place: Place) -> None:
    create("try", using=place.using)
    place.ask("DELETE FROM thing WHERE id > 10")
    counts: list[int] = []
    ask, asked = threading.Event(), threading.Event()

    def work() -> None:
        for _ in range(3):
            counts.append(place.count)
            asked.set()
            assert ask.wait(10)
            ask.clear()
        connections[place.using].close()

    worker = threading.Thread(target=work)
    worker.start()
    for name in ("try", "main", "main"):
        assert asked.wait(10)
        asked.clear()
        use(name, place.using)
        ask.set()
    worker.join()
    assert counts == [10, 100, 10]


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt])
def test_a_block_has_a_branch_of_its_own_whatever_happens_in_it(
    place: Place, ending: type[BaseException] | None
) -> None:
    def work() -> None:
        with branch("scratch", using=place.using) as made:
            assert where(place.using).branch == made.name == "scratch"
            place.ask("DELETE FROM thing WHERE id > 10")
            with branch("inner", using=place.using):
                assert place.count == 10
                place.ask("BEGIN")
                place.ask("DROP TABLE thing")
            assert place.count == 10
            transaction.atomic(place.using).__enter__()
            place.ask("DROP TABLE thing")
            if ending:
                raise ending

    # As a cell that is run again.
    for _ in range(2):
        with pytest.raises(ending) if ending else nullcontext():
            work()
        assert (place.count, where(place.using).branch, names(place)) == (100, "", [])


def test_the_branch_of_a_block_is_left_to_it(place: Place) -> None:
    verbs: list[Callable[[], Any]] = [
        lambda: drop(using=place.using),
        lambda: reset(using=place.using),
        lambda: rename("scratch", "other", using=place.using),
    ]
    with branch("scratch", using=place.using):
        for verb in verbs:
            with pytest.raises(
                BranchError, match=r"^scratch is removed at the end of its block: leave it to"
            ):
                verb()
        again = place.run("with branch('scratch'): print('never')")
        assert "There is a branch scratch already: it is removed at the end of its block." in again.stderr
        assert place.count == 100


def test_a_copy_stands_in_for_the_alias_in_this_thread_only(place: Place) -> None:
    original = connections[place.using]
    counts: list[int] = []

    def elsewhere() -> None:
        counts.append(place.count)
        connections[place.using].close()
        assert names(place) == []

    def work() -> None:
        with copied(place.using) as copy:
            assert connections[place.using] is copy
            assert copy.is_aside  # type: ignore[attr-defined]
            place.ask("DELETE FROM thing")
            with transaction.atomic(place.using):
                place.ask("INSERT INTO thing VALUES (1, 'new')")
            assert place.count == 1
            with pytest.raises(BranchError, match=r"^This is a copy that is gone in a moment: work with bra"):
                branches(place.using)
            worker = threading.Thread(target=elsewhere)
            worker.start()
            worker.join()
            raise SystemExit

    with pytest.raises(SystemExit):
        work()
    assert connections[place.using] is original
    assert (counts, place.count, names(place)) == ([100], 100, [])


def test_an_interrupt_on_the_way_to_a_branch_leaves_the_process_where_it_was(place: Place) -> None:
    def interrupt(**_: Any) -> None:
        moved.disconnect(interrupt)
        raise KeyboardInterrupt

    moved.connect(interrupt)
    with pytest.raises(KeyboardInterrupt), branch("scratch", using=place.using):
        pass
    assert (where(place.using).branch, place.count, names(place)) == ("", 100, [])


def test_what_a_killed_process_left_is_removed_by_the_next_call_which_says_so(place: Place) -> None:
    told: list[str] = []

    def tell(said: list[str], **_: Any) -> None:
        told.extend(said)

    swept.connect(tell)
    with place.start(
        "with branch('scratch') as made: print(made.name, flush=True); sys.stdin.read()"
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "scratch\n"
        assert names(place) == ["scratch"]
        assert told == []
        killed.kill()
    place.wait_for_end()
    with branch("scratch", using=place.using):
        assert place.count == 100
    assert told == ["scratch, whose process is gone"]
    assert names(place) == []


def test_migrations_of_cells_are_known_where_they_are_applied(place: Place) -> None:
    evolved.write(connections[place.using], "catalog", "0003_x", "text of main")
    create("try", using=place.using)
    use("try", place.using)
    assert evolved.text(connections[place.using], "catalog", "0003_x") == "text of main"
    evolved.write(connections[place.using], "catalog", "0003_x", "text of try")
    with copied(place.using) as copy:
        assert evolved.text(copy, "catalog", "0003_x") == "text of try"
        folder = evolved.folder(copy)
    assert not folder.exists()
    with branch("blank", parent="empty", using=place.using):
        assert evolved.text(connections[place.using], "catalog", "0003_x") == ""
    rename("try", "fit", using=place.using)
    assert evolved.text(connections[place.using], "catalog", "0003_x") == "text of try"
    reset(using=place.using)
    assert evolved.text(connections[place.using], "catalog", "0003_x") == "text of main"
    folder = evolved.folder(connections[place.using])
    drop(using=place.using)
    assert not folder.exists()
    evolved.remove(connections[place.using].settings_dict)


def test_a_process_starts_on_the_branch_that_a_variable_names(place: Place, manage: Manage) -> None:
    create("try", using=place.using)
    environment: dict[str, str | None] = {**place.environment, "WORKBENCH_BRANCH": "try"}
    status = json.loads(manage("branch", "--json", **environment).stdout)
    assert (status["branch"], status["is_main"]) == ("try", False)
    made = manage("migrate", "contenttypes", "-v", "0", "--yes", **environment)
    assert made.returncode == 0, made.stderr
    assert place.ask("SELECT to_regclass('django_content_type')") is None
    use("try", place.using)
    assert place.ask("SELECT count(*) FROM django_migrations") == 2
    # Before anybody was connected.
    started = Place({**place.environment, "WORKBENCH_BRANCH": "try"}, place.using)
    for first in ("connection.copy()", "connection"):
        asked = f"cursor = {first}.cursor(); cursor.execute('SELECT to_regclass(%s)', ['django_migrations'])"
        assert started.run(f"{asked}; print(cursor.fetchone())").stdout == "('django_migrations',)\n"
    block = "with branch('scratch'): print(here().parent)\nprint(here().name)"
    assert started.run(block).stdout == "try\ntry\n"


def test_a_variable_that_names_no_branch_is_one_sentence_and_does_not_lead_to_main(
    place: Place, manage: Manage
) -> None:
    refused = manage("migrate", **{**place.environment, "WORKBENCH_BRANCH": "try"})
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith("(WORKBENCH_BRANCH asks for it.)")
    assert "There is no branch try" in refused.stderr
    assert place.ask("SELECT to_regclass('django_migrations')") is None
    connections[place.using].close()
    made = manage(
        "branch", "create", "try", "--from", "main", **{**place.environment, "WORKBENCH_BRANCH": "try"}
    )
    assert made.returncode == 0, made.stderr
    assert names(place) == ["try"]


def test_who_is_on_a_branch_that_is_gone_is_told_the_way_back(place: Place, manage: Manage) -> None:
    create("try", using=place.using)
    use("try", place.using)
    gone = manage("branch", "drop", "try", **place.environment)
    assert gone.stdout == "try is dropped.\n", gone.stderr
    with pytest.raises(
        BranchError, match=r"^try, where this process is, is gone: %branch use main goes back"
    ):
        here(place.using)
    with pytest.raises(ConnectionFailed):
        place.ask("SELECT 1")
    use("main", place.using)
    assert place.count == 100
