"""What the kernel tells about itself: %workbench, ? and Shift+Tab."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.kernel import Kernel

THINGS = """
import json
from workbench.frames import frame
from workbench.notebook.guide import Thing, things
print(json.dumps([
    [each.name, each.line, each.doc, each.examples]
    for each in [*things(get_ipython()), Thing("frame.chunks", frame.chunks)]
]))
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run("%manage migrate -v 0\n%manage populate -v 0")
        yield running


@pytest.fixture(scope="module")
def things(kernel: Kernel) -> list[tuple[str, str, str, list[str]]]:
    return [tuple(each) for each in json.loads(kernel.run(THINGS).stdout)]


def asked(kernel: Kernel, code: str) -> str:
    """Return what Shift+Tab shows at the end of the code."""
    reply = kernel._client.inspect(code, len(code), reply=True, timeout=30)["content"]
    assert reply["found"]
    return re.sub(r"\x1b\[[\d;]*m", "", reply["data"]["text/plain"])


def test_a_misspelt_name_is_one_line_with_a_guess(kernel: Kernel) -> None:
    assert kernel.run("%workbench frme").error == ["There is no frme here: did you mean frame?"]
    assert kernel.run("%workbench xyzzy").error == ["There is no xyzzy here: %workbench lists what there is."]


def test_whatever_is_pushed_has_a_line_and_an_example_in_one_form(
    things: list[tuple[str, str, str, list[str]]],
) -> None:
    names = {name for name, *_ in things}
    assert {"frame", "branch", "who_blocks", "%branch", "%manage", "%%evolve", "%%diff"} <= names
    for name, line, doc, examples in things:
        assert re.fullmatch(r"[A-Z].{10,90}\.", line), name
        assert examples, name
        assert doc.split("\n")[1:2] == [""], name
        (said,) = re.findall(r"^(Examples?::)$", doc, re.MULTILINE)
        assert (said == "Examples::") == (len(examples) > 1 or _is_several(examples[0])), name


def _is_several(cell: str) -> bool:
    lines = [line for line in cell.split("\n") if not line.startswith(" ")]
    return len(lines) > 1 and not cell.startswith("%%")


def test_every_example_runs(kernel: Kernel, things: list[tuple[str, str, str, list[str]]]) -> None:
    for name, *_, examples in things:
        kernel.run("%branch use main\n%manage migrate -v 0\n%manage populate -v 0")
        for cell in examples:
            outcome = kernel.run(cell)
            assert (outcome.error, outcome.stderr) == ([], ""), (name, cell)


def test_it_lists_what_there_is_each_with_its_line_and_example(
    kernel: Kernel, things: list[tuple[str, str, str, list[str]]]
) -> None:
    shown = kernel.run("%workbench").result
    for name, line, _, examples in things:
        if "." not in name:
            assert re.search(rf"^  {re.escape(name)} +{re.escape(line)} ", shown, re.MULTILINE), name
            assert examples[0].split("\n")[0] in shown
    assert re.search(r"^  catalog +Author, Book$", shown, re.MULTILINE)


def test_it_tells_all_of_one(kernel: Kernel) -> None:
    shown = kernel.run("%workbench frame").result
    assert shown.startswith("frame(\n    source: Source,")
    assert "Read rows into a DataFrame." in shown
    assert "For example\nframe(Book.objects.all())" in shown
    assert "``" not in shown
    magic = kernel.run("%workbench %branch").result
    assert magic.startswith("%branch\n")
    assert "%branch create [--from BRANCH] [--expires 2h] [--end] name" in magic
    both = kernel.run("%workbench branch").result
    assert "with branch(" in both
    assert "%branch create" in both


def test_a_magic_that_is_asked_for_help_tells_about_itself_and_does_nothing(kernel: Kernel) -> None:
    assert kernel.run("%branch --help").result == kernel.run("%workbench %branch").result
    outcome = kernel.run("%%evolve catalog --help\nprint('ran')")
    assert outcome.result.startswith("%%evolve")
    assert (outcome.stdout, outcome.error) == ("", [])
    assert kernel.run("%manage migrate --help").stdout.startswith("usage: %manage migrate")
    assert "nothing.py" in "".join(kernel.run("%run nothing.py --help").error)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("frame", "source: Source,"),
        ("frame(", "Read rows into a DataFrame."),
        ("frame.chunks", "for chunk in frame.chunks("),
        ("models_at('catalog'", "models_at(app_label: str, migration: str | None = None, *"),
        ("where", "where(alias: str = 'default') -> Place"),
        ("branch", "Be on a branch of its own"),
        ("%branch", "Say where this kernel is"),
        ("%branch create", "Say where this kernel is"),
        ("%%evolve catalog", "Show the migration that"),
    ],
)
def test_a_name_says_its_signature_and_its_docstring(kernel: Kernel, code: str, said: str) -> None:
    shown = asked(kernel, code)
    assert said in shown
    assert re.search(r"^ *Examples?::$", shown, re.MULTILINE)


def test_a_model_says_its_fields_its_relations_and_its_managers(kernel: Kernel) -> None:
    shown = asked(kernel, "Author")
    assert "Init signature: Author(id, name, bio, country, created_at)" in shown
    assert "    name        CharField, at most 100 letters\n" in shown
    assert "    book_set.all()  each Book whose author it is; in queries book__title\n" in shown
    assert "    objects  Manager\n" in shown
    assert "ForeignKey to Author, key author_id; in queries author__name" in asked(kernel, "Book")
    assert "Users within the Django authentication system" in asked(kernel, "User")
    assert "book_set.all()" in kernel.run("%workbench Author").result


def test_a_model_that_follows_the_database_says_what_it_is_now(kernel: Kernel) -> None:
    kernel.run("%manage migrate catalog 0001 -v 0")
    shown = asked(kernel, "Author")
    assert "catalog.Author, table catalog_author, as of 0001_initial" in shown
    assert "country" not in shown
    kernel.run("%manage migrate -v 0")


def test_a_queryset_says_its_sql_and_is_not_read(kernel: Kernel) -> None:
    kernel.run("authors = Author.objects.all(); book = Book.objects.first()")
    assert 'FROM "catalog_author"' in asked(kernel, "authors")
    kernel._client.inspect("book.author", 11, reply=True, timeout=30)
    assert kernel.run("authors._result_cache, book._state.fields_cache").result == "(None, {})"
