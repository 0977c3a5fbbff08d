"""Names that would do harm if they were taken for SQL, options, paths or HTML."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.branches.conftest import Place, administrator
from tests.branches.conftest import place as place
from tests.branches.conftest import prepared as prepared
from tests.hostile import ANY, content, examples
from tests.schema.test_hostile import harmless
from workbench.branches import BranchError, branch, branches, create, drop, rename, reset, use
from workbench.branches.verbs import NAME, connected, look
from workbench.show import UNSEEN


def everything(place: Place) -> set[tuple[Any, ...]]:
    with administrator() as cursor:
        return content(cursor)


def said(error: BaseException) -> str:
    """Return what an error says, which is one line that a terminal shows as it is."""
    text = str(error)
    assert "\n" not in text
    assert not UNSEEN.search(text)
    return text


@given(name=ANY)
@example("a\n\x1b[31m'; DROP TABLE thing; --")
@examples(5)
def test_a_name_that_is_none_changes_nothing(prepared: Place, name: str) -> None:
    using = prepared.using
    before = everything(prepared)
    for verb in (use, reset, drop):
        with pytest.raises(BranchError) as refused:
            verb(name or "x", using=using)
        said(refused.value)
    with pytest.raises(BranchError) as refused, connected(name, using):
        pass
    assert look(name or "x", using)[1] is None
    with pytest.raises(BranchError) as refused:
        create("otter", name or "x", using=using)
    said(refused.value)
    if not NAME.fullmatch(name):
        with pytest.raises(BranchError) as refused:
            create(name, using=using)
        said(refused.value)
        with pytest.raises(BranchError) as refused, branch(name, using=using):
            pass
        said(refused.value)
    assert everything(prepared) == before


@given(name=st.from_regex(NAME, fullmatch=True).filter(lambda name: len(name.encode()) < 40))
@examples(2)
def test_a_branch_may_have_any_name_of_letters_digits_and_some_signs(place: Place, name: str) -> None:
    using = place.using
    before = everything(place)
    made = create(name, using=using)
    use(name, using=using)
    place.ask("DELETE FROM thing")
    assert place.count == 0
    reset(using=using)
    assert place.count == 100
    with pytest.raises(BranchError) as refused:
        rename(name, "'; DROP TABLE thing; --", using=using)
    said(refused.value)
    there = branches(using)
    assert name in {each.name for each in there}
    harmless(there._repr_html_())
    assert {what for what in everything(place) - before if what[1] == "database"} == {
        (made.key, "database", None, None)
    }
    drop(using=using)
    assert everything(place) == before
