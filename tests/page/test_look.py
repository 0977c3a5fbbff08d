"""Looking at branches of every kind without touching them."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.branches.conftest import KINDS, Place
from tests.branches.conftest import place as place
from tests.branches.conftest import prepared as prepared
from workbench.branches import branches, create, swept
from workbench.branches.verbs import look
from workbench.connection.glance import APPLICATION
from workbench.connection.sessions import aside
from workbench.page.look import look as look_at_page

pytestmark = pytest.mark.parametrize("prepared", list(KINDS), indirect=True, scope="module")


def test_what_is_gone_has_no_entry_and_the_others_are_listed(place: Place) -> None:
    create("otter", using=place.using)
    there, entry = look("other", place.using)
    assert ([each.name for each in there][1:], entry) == (["otter"], None)


def test_a_session_that_looks_says_so_and_reads_its_branch(place: Place) -> None:
    create("otter", using=place.using)
    place.ask("DELETE FROM thing")
    _, entry = look("otter", place.using)
    assert entry is not None
    with closing(aside(entry, place.using)) as session, session.cursor() as cursor:
        cursor.execute("SELECT count(*), current_setting('application_name') FROM thing")
        assert cursor.fetchone() == (100, APPLICATION)
    assert place.count == 0


def test_the_page_of_each_kind_says_where_it_is(place: Place) -> None:
    create("otter", using=place.using)
    state = look_at_page(place.using, "otter")
    assert (state.branch.name, state.database, state.tables) == ("otter", place.using, ())
    assert {each.name for each in state.branches} >= {"otter"}


def test_looking_sweeps_nothing(place: Place) -> None:
    removed: list[str] = []

    def hear(sender: object, said: list[str], **_: object) -> None:
        removed.extend(said)

    with place.start("with branch('brief'): print('made', flush=True); die()") as dying:
        dying.communicate(timeout=60)
    place.wait_for_end()
    swept.connect(hear)
    try:
        look("main", place.using)
        look_at_page(place.using)
        assert not removed
        branches(place.using)
        assert removed == ["brief, whose process is gone"]
    finally:
        swept.disconnect(hear)
