"""Errors in a cell: the person's own lines, what was meant, and all the rest on demand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import Kernel

COLOURS = re.compile(r"\x1b\[[\d;]*m")
BELOW = re.compile(r"\[\.\.\. (\d+) frames? not shown: %tb shows all\]")
CAUSED = "The above exception was the direct cause of the following exception"


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run("%manage migrate -v 0")
        yield running


def shown(kernel: Kernel, cell: str) -> str:
    return COLOURS.sub("", "\n".join(kernel.run(cell).error))


def test_only_the_cells_own_lines_are_shown_and_tb_shows_all(kernel: Kernel) -> None:
    error = shown(kernel, "def look():\n    Author.objects.filter(name=1, nam='x')\nlook()")
    assert error.count("Cell In") == 2
    assert "----> 3 look()" in error
    assert "----> 2     Author.objects.filter(name=1, nam='x')" in error
    assert "site-packages" not in error
    hidden = BELOW.search(error)
    assert hidden is not None
    whole = shown(kernel, "%tb")
    assert whole.count("site-packages/django") == int(hidden[1])
    assert "not shown" not in whole
    assert "site-packages/django" in shown(kernel, "%tb Plain")


def test_what_has_nothing_to_hide_is_as_ever(kernel: Kernel) -> None:
    error = shown(kernel, "1 / 0")
    assert error.endswith("----> 1 1 / 0\n\nZeroDivisionError: division by zero")
    assert "%tb" not in error
    assert shown(kernel, "x = = 1").endswith("SyntaxError: invalid syntax\n")


def test_a_file_of_the_persons_is_theirs_and_a_library_is_not(kernel: Kernel, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine.py", tmp_path / "site-packages" / "theirs.py"
    theirs.parent.mkdir()
    theirs.write_text("def fail(how):\n    how()\n")
    mine.write_text("import theirs\n\ndef go():\n    theirs.fail(lambda: 1 / 0)\n")
    kernel.run(f"import sys; sys.path += [{str(tmp_path)!r}, {str(theirs.parent)!r}]; import mine")
    error = shown(kernel, "mine.go()")
    assert "mine.py:4, in go()" in error
    assert "mine.py:4, in go.<locals>.<lambda>()" in error
    assert "theirs.py" not in error
    assert BELOW.search(error)


def test_an_error_that_says_again_what_the_driver_said_stands_alone(kernel: Kernel) -> None:
    error = shown(kernel, "connection.cursor().execute('SELECT nope')")
    assert error.count('column "nope" does not exist') == 1
    assert "psycopg2" not in error
    assert "UndefinedColumn" in shown(kernel, "%tb")


def test_other_causes_are_shown(kernel: Kernel) -> None:
    error = shown(kernel, "Author.objects.filter(id='abc')")
    assert "ValueError: invalid literal for int()" in error
    assert CAUSED in error
    assert error.endswith("ValueError: Field 'id' expected a number but got 'abc'.")
    cell = "try: Author.objects.get(pk=0)\nexcept Author.DoesNotExist as e: raise RuntimeError(str(e)) from e"
    error = shown(kernel, cell)
    assert error.count("Author matching query does not exist") == 2
    assert CAUSED in error
    error = shown(kernel, "a, b = KeyError('x'), KeyError('x')\na.__cause__, b.__cause__ = b, a\nraise a")
    assert error.endswith("KeyError: 'x'")


@pytest.mark.parametrize(
    ("cell", "end"),
    [
        ("async def wait():\n    return 1 / 0\nawait wait()", "ZeroDivisionError: division by zero"),
        ("%%time\n1 / 0", "ZeroDivisionError: division by zero"),
        ("%%diff catalog\n1 / 0", "ZeroDivisionError: division by zero"),
        ("eval('1 / 0')", "ZeroDivisionError: division by zero"),
        ("error = ValueError('one'); error.add_note('two'); raise error", "ValueError: one\ntwo"),
    ],
)
def test_it_works_in_every_kind_of_cell(kernel: Kernel, cell: str, end: str) -> None:
    error = shown(kernel, cell)
    assert error.endswith(end)
    assert "site-packages" not in error


def test_a_group_of_exceptions_is_shown_as_a_group(kernel: Kernel) -> None:
    outcome = kernel.run("raise ExceptionGroup('both', [ValueError(1), TypeError(2)])")
    assert "ExceptionGroup: both (2 sub-exceptions)" in outcome.stderr


def test_a_function_that_calls_itself_for_ever_is_shown_in_part(kernel: Kernel) -> None:
    error = shown(kernel, "def again(n):\n    return again(n + 1)\nagain(0)")
    assert error.count("in again(n)") < 20
    assert BELOW.search(error)
    assert "RecursionError" in error


def test_the_persons_own_mode_wins(kernel: Kernel) -> None:
    mistake = "Author.objects.filter(nam='x')"
    kernel.run("%xmode Context")
    assert "site-packages/django" in shown(kernel, mistake)
    kernel.run("%xmode Minimal")
    assert shown(kernel, mistake).startswith("FieldError: Cannot resolve")
    kernel.run("%xmode Own")
    assert "site-packages" not in shown(kernel, mistake)


def test_the_debugger_has_the_whole_stack(kernel: Kernel) -> None:
    shown(kernel, "Author.objects.filter(nam='x')")
    cell = (
        "import builtins, io\n"
        "from unittest.mock import patch\n"
        "from IPython.terminal.debugger import Pdb\n"
        "with patch('builtins.input', side_effect=['w', 'q']):\n"
        "    get_ipython().run_line_magic('debug', '')"
    )
    said = COLOURS.sub("", kernel.run(cell).stdout)
    assert "django/db/models/sql/query.py" in said


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("Author.objects.filter(nam='x')", "name"),
        ("frame(Author.objects.values('nmae'))", "name"),
        (
            "Book.objects.select_related('autor').count(); list(Book.objects.select_related('autor'))",
            "author",
        ),
        ("Book(titel='x')", "title"),
        ("Autor.objects.all()", "Author"),
        ("Author.object.all()", "objects"),
        ("Author().nam", "name"),
        ("Author.objects.filter(qqqq=1)", ""),
        ("qqqq", ""),
        ("class Odd:\n    def __dir__(self): raise ValueError\nOdd().x", ""),
    ],
)
def test_what_was_meant_is_asked_below(kernel: Kernel, cell: str, meant: str) -> None:
    last = shown(kernel, cell).splitlines()[-1]
    assert last == f"Did you mean {meant}?" if meant else "Did you mean" not in last


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%mange populate", "UsageError: Line magic function `%mange` not found: did you mean %manage?\n"),
        ("%%evolv catalog\nx", "UsageError: Cell magic `%%evolv` not found: did you mean %%evolve?\n"),
        ("%qqqq", "UsageError: Line magic function `%qqqq` not found.\n"),
        ("%%manage\nx", "(But line magic `%manage` exists, did you mean that instead?)"),
    ],
)
def test_so_is_which_magic(kernel: Kernel, cell: str, said: str) -> None:
    assert said in kernel.run(cell).stderr


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("frame(Book, limit=3)", "frame takes no limit: write frame(Book.objects.all()[:3])."),
        ("frame(Book, idnex='id')", "frame takes no idnex: did you mean index?"),
        ("frame(Book, qqqq=1)", "frame takes no qqqq: it takes source, params, index, categories and using."),
        ("frame()", "frame needs source, as in frame(Book.objects.all())."),
        ("frame.chunks(Book, size=3)", "frame.chunks takes no size: it takes source, params, rows,"),
        ("load(Author)", "load needs rows, as in load("),
        (
            "states()",
            'states needs app_label, as in states("catalog"). The apps are catalog, admin, auth, ',
        ),
        ("timeline()", 'timeline needs app_label, as in timeline("catalog"). The apps are catalog, '),
        ("models_at()", "models_at needs app_label, as in models_at("),
        ("branch()", 'branch needs name, as in with branch("scratch"): ...'),
        ("where(1, 2)", "where takes no more than alias, as in where()."),
    ],
)
def test_a_call_of_ours_that_cannot_begin_is_one_sentence(kernel: Kernel, cell: str, said: str) -> None:
    (line,) = kernel.run(cell).error
    assert line.startswith(said)
    assert "\n" not in line
    assert "TypeError" in shown(kernel, "%tb")


def test_what_fails_within_is_not_taken_for_that(kernel: Kernel) -> None:
    kernel.run("def states(app): pass\nclass Rows:\n    def __iter__(self): frame.chunks()")
    assert "TypeError: states() missing" in shown(kernel, "states()")
    assert shown(kernel, "load(Author, Rows())").startswith("frame.chunks needs source")
