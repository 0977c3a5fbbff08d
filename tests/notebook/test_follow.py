"""The shell's models follow the database, in real kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conftest import Manage
from tests.kernel import Kernel
from workbench.notebook.follow import names_of

SET_UP = """
import re
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import prefetch_related_objects

statements = []

def record(connection, **_):
    class Recording(connection.connection.cursor_factory):
        def execute(self, sql, params=None):
            statements.append(str(sql))
            super().execute(sql, params)

        def copy_expert(self, sql, *arguments):
            statements.append(str(sql))
            super().copy_expert(sql, *arguments)

    connection.connection.cursor_factory = Recording

connection_created.connect(record, weak=False)

def count():
    return Author.objects.count()

SERIALIZABLE = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
call_command("migrate", verbosity=0)
applied = MigrationRecorder(connection).migration_qs.count()
RealAuthor, RealBook = Author, Book
real = RealAuthor(id=77, name="Ada", country="England")
first = RealAuthor.objects.order_by("id")
"""
# A connection of its own, whatever became of the last one, and one book of one author.
RESTORE = """
connections["default"].close(); connections["default"].connect()
if MigrationRecorder(connection).migration_qs.count() != applied:
    call_command("migrate", verbosity=0)
with transaction.atomic():
    RealAuthor.objects.all().delete(); real.save(force_insert=True)
    book = RealBook.objects.create(id=77, title="Notes", author=real)
"""
# All of them are kept from a time when the database was at 0001_initial.
OLD = """
OldAuthor, OldBook = Author, Book
old, old_book = Author.objects.get(), Book.objects.get()
query, related, values = Author.objects.all(), old.book_set, Author.objects.values_list("name")
"""
AT_0001 = "Author and Book are now as of 0001_initial: Author has no country."
AGAIN = "Author and Book are the classes of catalog.models again."
# Of the driver's statements, without what Django asks each connection to see whether it is alive.
LOOKS = "sum(bool(re.match('SELECT .* FROM .?django_migrations', sql)) for sql in statements)"
SENT = "sum(sql != 'SELECT 1' for sql in statements)"


@pytest.fixture(scope="module")
def running() -> Iterator[Kernel]:
    with Kernel() as kernel:
        assert kernel.run(SET_UP).error == []
        yield kernel
        kernel.run(RESTORE)
        kernel.run("real.delete()")


@pytest.fixture
def kernel(running: Kernel) -> Kernel:
    """The same kernel for each test, at the newest migration with a connection that nothing happened to."""
    assert running.run(RESTORE).error == []
    return running


@pytest.fixture(scope="module")
def kept(running: Kernel) -> None:
    for cell in (RESTORE, "%manage migrate catalog 0001 -v 0", OLD, "%manage migrate catalog -v 0"):
        assert running.run(cell).error == []


def test_names_follow_a_migrate_back_and_forth(kernel: Kernel) -> None:
    assert kernel.run("%manage migrate catalog 0001 -v 0").stdout.splitlines() == [AT_0001]
    assert kernel.run("Author").result == "<class 'catalog.Author' as of 0001_initial>"
    assert kernel.run("Book").result == "<class 'catalog.Book' as of 0001_initial>"
    assert kernel.run("Book.objects.get().author.name, list(frame(Author))").result == (
        "('Ada', ['id', 'name', 'bio', 'created_at'])"
    )
    assert kernel.run("Author.objects.get().country").error == [
        "Author as of 0001_initial has no country, which catalog.models.Author has."
    ]
    assert kernel.run("%manage migrate catalog -v 0").stdout.splitlines() == [AGAIN]
    assert kernel.run("Author is RealAuthor, Book is RealBook, first.get().country").result == (
        "(True, True, '')"
    )


@pytest.mark.parametrize("place", ["_behind_of", "_move", "_rebind", "_bind_others"])
def test_names_that_an_interrupt_kept_from_following_do_so_with_the_next_cell(
    kernel: Kernel, place: str
) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    interrupted = kernel.run(
        "import sys\n"
        "from workbench.schema import follow\n"
        "def interrupt(frame, event, _):\n"
        f"    if event == 'call' and frame.f_code.co_name == {place!r}:\n"
        "        if frame.f_code.co_filename == follow.__file__:\n"
        "            raise KeyboardInterrupt\n"
        "sys.setprofile(interrupt)\n"
        "%manage migrate catalog -v 0"
    )
    assert "KeyboardInterrupt" in "".join(interrupted.error)
    assert kernel.run("Author is RealAuthor, Book is RealBook").result == "(True, True)"


def test_before_the_first_migration_it_is_said_that_there_is_no_such_model(kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    assert kernel.run("%manage migrate catalog zero -v 0").stdout.splitlines() == [
        "There is no Author or Book in the database: no migration of catalog is applied."
    ]
    assert kernel.run("count()").error == [
        'relation "catalog_author" does not exist: no migration of catalog is applied. '
        "%manage migrate catalog makes its tables."
    ]


def test_what_another_session_did_is_said_by_its_record_whether_it_has_a_file_here_or_not(
    kernel: Kernel,
) -> None:
    kernel.run("Author.objects.count()")
    with Kernel() as other:
        insert = "INSERT INTO django_migrations (app, name, applied) VALUES ('catalog', '0003_theirs', now())"
        other.run(f'connection.cursor().execute("{insert}")')
        assert kernel.run("Author.objects.count() > 0").stdout == (
            "Another session migrated catalog to 0003_theirs.\n"
        )
        other.run("connection.cursor().execute(\"DELETE FROM django_migrations WHERE name = '0003_theirs'\")")
    assert kernel.run("Author.objects.count() > 0").stdout == (
        "Another session migrated catalog to 0002_author_country.\n"
    )


def test_names_follow_in_the_middle_of_a_cell(kernel: Kernel) -> None:
    outcome = kernel.run(
        "call_command('migrate', 'catalog', '0001', verbosity=0); print(Author, count())\n"
        "call_command('migrate', 'catalog', verbosity=0); print(Author, count())"
    )
    assert outcome.error == []
    assert outcome.stdout.splitlines() == [
        AT_0001,
        "<class 'catalog.Author' as of 0001_initial> 1",
        AGAIN,
        "<class 'catalog.models.Author'> 1",
    ]


def test_a_migration_by_other_means_is_seen_at_the_end_of_the_cell(kernel: Kernel) -> None:
    cell = "MigrationExecutor(connection).migrate([('catalog', '0001_initial')]); print('done')"
    assert kernel.run(cell).stdout.splitlines() == ["done", AT_0001]
    assert kernel.run("count()").result == "1"


OF_OLD = {
    "a queryset": "list(query)",
    "a queryset that is counted": "query.count()",
    "a queryset that is asked for one": "query.filter(name='Ada').first()",
    "whether there is any": "query.exists()",
    "an aggregate": "query.aggregate(Count('id'))",
    "values": "list(values)",
    "an iterator": "next(query.iterator())",
    "an asynchronous query": "await query.acount()",
    "a subquery": "Book.objects.filter(author__in=query.values('id')).count()",
    "a union": "list(query.values('id').union(Book.objects.values('id')))",
    "update": "query.update(name='Changed')",
    "deletion": "query.delete()",
    "a new row": "OldAuthor.objects.create(name='New')",
    "new rows": "OldAuthor.objects.bulk_create([OldAuthor(name='New')])",
    "an instance that is saved": "old.save()",
    "an instance that is deleted": "old.delete()",
    "an instance that is read anew": "old.refresh_from_db()",
    "a foreign key": "old_book.author",
    "related rows": "related.count()",
    "a new related row": "related.create(title='New')",
    "a prefetch": "prefetch_related_objects([old], 'book_set')",
    "a frame": "frame(query)",
    "a frame of the model": "frame(OldAuthor)",
    "chunks of a frame": "next(frame.chunks(query))",
    "a load": "load(OldAuthor, [{'name': 'New'}])",
    "an update by load": "load(OldAuthor, [{'id': real.pk, 'name': 'New'}], on_conflict='update')",
}


@pytest.mark.parametrize("cell", OF_OLD.values(), ids=OF_OLD)
def test_what_was_kept_of_an_older_state_is_one_sentence_and_changes_nothing(
    kept: None, kernel: Kernel, cell: str
) -> None:
    (line,) = kernel.run(cell).error
    assert re.fullmatch(
        r"This (Author|Book) is as of 0001_initial, and the database is at 0002_author_country now: "
        r"make the query, or the instance, anew from \1\.",
        line,
    )
    assert kernel.run("list(first.values_list('name', flat=True)), RealBook.objects.count()").result == (
        "(['Ada'], 1)"
    )


OF_NEW = {
    "a queryset": "list(RealAuthor.objects.all())",
    "a frame": "frame(RealAuthor)",
    "a load": "load(RealAuthor, [{'name': 'New'}])",
    "an instance": "real.save()",
    "a point of the future": "list(models_at('catalog', '0002').Author.objects.all())",
}


@pytest.mark.parametrize("cell", OF_NEW.values(), ids=OF_NEW)
def test_a_class_of_the_code_at_an_older_state_is_one_sentence(kernel: Kernel, cell: str) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    (line,) = kernel.run(cell).error
    assert line.startswith("column ")
    assert "country" in line
    assert line.endswith(
        "does not exist: the database is at 0001_initial of catalog, and the query is not. "
        "Make it anew from the model, or run %manage migrate catalog."
    )
    assert kernel.run("count()").result == "1"


def test_a_misspelt_column_is_not_blamed_on_the_migrations(kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    assert "did you mean name?" in "".join(kernel.run("frame('SELECT nmae FROM catalog_author')").error)


def test_what_was_kept_works_again_where_the_database_comes_back_to_it(kept: None, kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    outcome = kernel.run("query.count(), old.book_set.count()")
    assert (outcome.result, outcome.error) == ("(1, 1)", [])


def test_a_migration_by_another_kernel_or_a_terminal_is_said_and_followed(
    kernel: Kernel, manage: Manage
) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    kernel.run("query_of_0001 = Author.objects.all()")
    with Kernel() as other:
        assert other.run("Author.objects.count()").stdout.splitlines() == [AT_0001]
        assert other.run("%manage migrate catalog -v 0").stdout.splitlines() == [AGAIN]
    # This cell names no model: its query is where the kernel notices.
    outcome = kernel.run("list(query_of_0001)")
    assert outcome.stdout.splitlines() == ["Another session migrated catalog to 0002_author_country.", AGAIN]
    assert outcome.error[0].startswith(
        "This Author is as of 0001_initial, and the database is at 0002_author"
    )
    assert kernel.run("count(), Author is RealAuthor").result == "(1, True)"
    manage("migrate", "catalog", "0001", "-v", "0")
    outcome = kernel.run("Author")
    assert outcome.stdout.splitlines() == ["Another session migrated catalog to 0001_initial.", AT_0001]
    assert outcome.result == "<class 'catalog.Author' as of 0001_initial>"


@pytest.mark.parametrize(
    ("cell", "looks", "others"),
    [
        ("1 + 1", 0, 0),
        ("'Author'", 0, 0),
        ("str(RealAuthor.objects.all().query)", 0, 0),
        ("Author.objects.count(), Book.objects.count(), Author.objects.count()", 1, 3),
        ("count(), count()", 1, 2),
        ("with transaction.atomic(): count(), count()", 1, 2),
        ("await RealAuthor.objects.acount()", 1, 1),
        ("frame(first), len(frame(first))", 1, 4),
        ("cursor = connection.cursor(); cursor.execute('SELECT 2'); cursor.execute('SELECT 3')", 1, 2),
        ("connection.cursor().execute('SET statement_timeout TO 0')", 0, 1),
    ],
)
def test_a_cell_that_asks_the_database_looks_once_and_others_never(
    kernel: Kernel, cell: str, looks: int, others: int
) -> None:
    kernel.run("statements.clear()")
    outcome = kernel.run(f"{cell}\nprint({LOOKS}, {SENT})")
    assert outcome.error == []
    assert outcome.stdout == f"{looks} {looks + others}\n"


IN_TRANSACTIONS = {
    "first in a block": [
        "with transaction.atomic(): connection.cursor().execute(SERIALIZABLE); print(count())"
    ],
    "first in a block that is asked by name": [
        "with transaction.atomic(): connection.cursor().execute(SERIALIZABLE); print(Author.objects.count())"
    ],
    "first in a block of many cells": [
        "block = transaction.atomic(); block.__enter__()",
        "connection.cursor().execute(SERIALIZABLE); print(Author.objects.count())",
        "block.__exit__(None, None, None)",
    ],
    "first without autocommit": [
        "transaction.set_autocommit(False)",
        "connection.cursor().execute(SERIALIZABLE); print(Author.objects.count())",
        "transaction.rollback(); transaction.set_autocommit(True)",
    ],
    "autocommit off and on": [
        "transaction.set_autocommit(False)",
        "transaction.set_autocommit(True)",
        "print(count())",
    ],
    "a block of many cells that migrates": [
        "block = transaction.atomic(); block.__enter__()",
        "call_command('migrate', 'catalog', '0001', verbosity=0)",
        "block.__exit__(ValueError, ValueError(), None)",
        "print(Author is RealAuthor, count())",
    ],
    "a block that failed": [
        "block = transaction.atomic(); block.__enter__()",
        "try: connection.cursor().execute('SELECT 1/0')\nexcept Exception: pass",
        "try: Author.objects.count()\nexcept Exception as error: print(type(error).__name__)",
        "block.__exit__(ValueError, ValueError(), None)",
        "print(count())",
    ],
    "a record in a block that failed": [
        "block = transaction.atomic(); block.__enter__()",
        "MigrationRecorder(connection).record_applied('catalog', '0003')\n"
        "try: connection.cursor().execute('SELECT 1/0')\nexcept Exception: pass",
        "block.__exit__(ValueError, ValueError(), None)",
        "print(count())",
    ],
    "a role that may not read the history": [
        "connection.cursor().execute('CREATE ROLE guest; GRANT SELECT ON catalog_author TO guest')",
        "connection.cursor().execute('SET ROLE guest')",
        "with transaction.atomic(): print(count())",
        "block = transaction.atomic(); block.__enter__()",
        "print(Author.objects.count())",
        "block.__exit__(None, None, None)",
    ],
}
PRINTED = {
    "a block of many cells that migrates": ["True 1"],
    "a role that may not read the history": ["1", "1"],
}


@pytest.mark.parametrize("name", IN_TRANSACTIONS)
def test_the_look_is_not_in_the_way_of_a_transaction(kernel: Kernel, name: str) -> None:
    try:
        outcomes = [kernel.run(cell) for cell in IN_TRANSACTIONS[name]]
    finally:
        kernel.run("connection.close(); connection.connect()")
        kernel.run("connection.cursor().execute('DROP OWNED BY guest; DROP ROLE guest')")
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    printed = "".join(outcome.stdout for outcome in outcomes).splitlines()
    wanted = PRINTED.get(name, ["1"])
    assert printed[-len(wanted) :] == wanted
    assert not [line for line in printed if "Error in callback" in line]


def test_asynchronous_queries_follow_too(kernel: Kernel) -> None:
    assert kernel.run("await Author.objects.acount()").result == "1"
    kernel.run("%manage migrate catalog 0001 -v 0")
    assert kernel.run("[type(each) async for each in Author.objects.all()]").result == (
        "[<class 'catalog.Author' as of 0001_initial>]"
    )
    (line,) = kernel.run("await RealAuthor.objects.aget()").error
    assert line.startswith("column catalog_author.country does not exist: the database is at 0001_initial")


def test_a_database_without_any_migration_is_one_sentence_in_every_transaction(scratch_url: str) -> None:
    sentence = (
        'relation "catalog_author" does not exist: no migration of catalog is applied. '
        "%manage migrate catalog makes its tables."
    )
    with Kernel({"DATABASE_URL": scratch_url}) as kernel:
        assert kernel.run("Author.objects.count()").error == [sentence]
        assert kernel.run("with transaction.atomic(): Author.objects.count()").error == [sentence]
        kernel.run("connection.ensure_connection(); transaction.set_autocommit(False)")
        kernel.run(
            "try: connection.cursor().execute('DROP TABLE nowhere')\nexcept Exception: pass\n"
            "try: connection.cursor().execute('SELECT 1')\nexcept Exception: pass"
        )
        assert kernel.run("connection.in_atomic_block").result == "False"
        kernel.run("connection.close(); connection.connect()")
        assert kernel.run("%manage migrate -v 0").error == []
        assert kernel.run("Author.objects.count()").result == "0"


@pytest.mark.parametrize(
    "code",
    [
        "X = 1",
        "X: int = 1",
        "X += 1",
        "(X, y) = 1, 2",
        "[*X] = y",
        "del X",
        "import X",
        "import X.y",
        "import a as X",
        "from a import X",
        "for y, (X, z) in q: pass",
        "with a as X: pass",
        "try: pass\nexcept E as X: pass",
        "match a:\n case {'k': X}: pass",
        "def X(): pass",
        "async def X(): pass",
        "class X: pass",
        "(X := 1)",
        "[X := i for i in r]",
        "def f():\n def g():\n  global X\n  X = 1",
        "class C:\n global X\n X = 1",
        "X = await a()",
        "async for X in y: pass",
        "async with a as X: pass",
    ],
)
def test_a_name_that_a_cell_assigns_is_known(code: str) -> None:
    assert "X" in names_of(code)[0]


@pytest.mark.parametrize(
    ("code", "is_used"),
    [
        ("X.y = 1", True),
        ("X[0] = 1", True),
        ("def f(): return X", True),
        ("def f(a: X): pass", True),
        ("f'{X}'", True),
        ("await X.a()", True),
        ("[i async for i in X.all()]", True),
        ("get_ipython().run_cell_magic('diff', 'a', 'X.objects')", True),
        ("def f(X): X", False),
        ("def f():\n X = 1", False),
        ("[X for X in y]", False),
        ("'X'", False),
        ("(", False),
    ],
)
def test_a_name_that_a_cell_uses_is_not_taken_for_one_that_it_assigns(code: str, is_used: bool) -> None:
    assert ("X" in names_of(code)[0], "X" in names_of(code)[1]) == (False, is_used)


def test_names_that_the_person_assigned_or_deleted_are_never_touched(kernel: Kernel) -> None:
    kernel.run("Group = 'mine'")
    kernel.run("del Permission")
    kernel.run("%timeit -n 1 -r 1 User")
    outcome = kernel.run("%manage migrate auth 0011 -v 0")
    assert outcome.error == []
    assert outcome.stdout.splitlines() == ["User is now as of 0011_update_proxy_permissions."]
    assert kernel.run("Group, 'Permission' in globals(), User").result == (
        "('mine', False, <class 'auth.User' as of 0011_update_proxy_permissions>)"
    )
    assert kernel.run("from django.contrib.auth.models import User\nUser").result == (
        "django.contrib.auth.models.User"
    )
    assert kernel.run("%manage migrate auth 0010 -v 0").stdout == ""
    assert kernel.run("%manage migrate -v 0").stdout == ""
    assert kernel.run("Group, 'Permission' in globals(), User").result == (
        "('mine', False, django.contrib.auth.models.User)"
    )
