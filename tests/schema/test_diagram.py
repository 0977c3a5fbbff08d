"""``diagram``: tables as Mermaid text, read again by the parser that JupyterLab draws with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from tests.schema.places import run
from workbench.schema import SchemaError, diagram, models_at, snapshot
from workbench.schema.diagram import Diagram

PARSER = Path(__file__).with_name("mermaid.cjs")
SCRIPTS = Path(sys.prefix, "share", "jupyter", "lab", "static")
Draw = Callable[..., Diagram]
Read = Callable[[Diagram], Any]


@pytest.fixture(scope="module")
def parser() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["node", str(PARSER), str(SCRIPTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as running:
        yield running
        running.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def understood(parser: subprocess.Popen[str]) -> Read:
    """Return what JupyterLab's Mermaid reads in a diagram: its tables, and its lines between them."""

    def read(what: Diagram) -> Any:
        assert parser.stdin is not None
        assert parser.stdout is not None
        print(json.dumps(str(what)), file=parser.stdin, flush=True)
        found = json.loads(parser.stdout.readline())
        assert "error" not in found, f"{found['error']}\n{what}"
        return found

    return read


@pytest.fixture
def draw(db: None) -> Draw:
    """Draw the tables that some SQL makes in a schema of the test's own."""
    run("CREATE SCHEMA here", "SET LOCAL search_path = here, public")

    def drawn(*statements: str) -> Diagram:
        run(*statements)
        return diagram(snapshot(schemas=["here"]))

    return drawn


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_an_unknown_app_is_said_in_a_sentence(db: None) -> None:
    with pytest.raises(SchemaError, match="did you mean catalog"):
        diagram("catalo")


CATALOG = """\
erDiagram
    catalog_author {
        bigint id PK
        varchar(100) name
        text bio
        timestamptz created_at
        varchar(100) country
    }
    catalog_book {
        bigint id PK
        varchar(200) title
        timestamptz created_at
        bigint author_id FK
    }
    catalog_author ||--o{ catalog_book : author_id"""


def test_an_app_is_drawn_the_same_from_the_database_a_snapshot_and_its_models(db: None) -> None:
    assert str(diagram("catalog")) == CATALOG
    assert diagram(snapshot("catalog")) == diagram("catalog")
    assert set(str(diagram(models_at("catalog"))).splitlines()) == set(CATALOG.splitlines())


def test_models_of_the_past_are_drawn_without_moving_the_database(db: None) -> None:
    assert "country" not in str(diagram(models_at("catalog", "0001")))
    assert str(diagram(models_at("catalog", "zero"))) == "erDiagram"
    assert "country" in str(diagram("catalog"))


def test_without_an_app_all_tables_are_drawn(db: None) -> None:
    everything = str(diagram())
    assert all(f"    {name} {{\n" in everything for name in snapshot().tables)
    assert "auth_user ||--o{ django_admin_log : user_id" in everything
    assert "django_content_type |o--o{ django_admin_log : content_type_id" in everything


def test_jupyter_gets_mermaid_and_a_terminal_gets_text(db: None) -> None:
    made = diagram("catalog")
    bundle, _ = DisplayFormatter().format(made)
    assert bundle == {"text/vnd.mermaid": CATALOG, "text/plain": CATALOG}
    assert repr(made) == str(made) == made.source


@pytest.mark.parametrize(
    ("column", "line"),
    [
        ("int NOT NULL REFERENCES a", ("||", "o{")),
        ("int REFERENCES a", ("|o", "o{")),
        ("int UNIQUE REFERENCES a", ("|o", "o|")),
        ("int UNIQUE NULLS NOT DISTINCT REFERENCES a", ("|o", "o|")),
        ("int PRIMARY KEY REFERENCES a", ("||", "o|")),
        ("int NOT NULL UNIQUE REFERENCES a ON DELETE CASCADE", ("||", "o|")),
        ("int UNIQUE DEFERRABLE REFERENCES a DEFERRABLE", ("|o", "o|")),
    ],
)
def test_a_line_says_whether_there_must_be_one_and_may_be_many(
    draw: Draw, column: str, line: tuple[str, str]
) -> None:
    made = draw("CREATE TABLE a (id int PRIMARY KEY)", f"CREATE TABLE b (a_id {column})")
    assert str(made).splitlines()[-1] == f"    a {'--'.join(line)} b : a_id"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ("x int, y int NOT NULL", "a |o--o{ b"),
        ("x int NOT NULL, y int NOT NULL", "a ||--o{ b"),
        ("x int NOT NULL, y int NOT NULL, UNIQUE (x, y)", "a ||--o| b"),
        ("x int NOT NULL, y int NOT NULL, UNIQUE (y, x)", "a ||--o| b"),
        ("x int NOT NULL, y int NOT NULL, UNIQUE (x)", "a ||--o| b"),
    ],
)
def test_a_key_of_two_columns_is_one_line(draw: Draw, columns: str, line: str) -> None:
    made = draw("CREATE TABLE a (x int, y int, PRIMARY KEY (x, y))")
    made = draw(f"CREATE TABLE b ({columns}, FOREIGN KEY (x, y) REFERENCES a)")
    assert str(made).splitlines()[-1] == f'    {line} : "x, y"'


def test_a_key_over_time_is_drawn_by_its_columns(draw: Draw) -> None:
    made = draw(
        "CREATE TABLE a (id int4range, at daterange, PRIMARY KEY (id, at WITHOUT OVERLAPS))",
        "CREATE TABLE b (id int4range, at daterange)",
        "ALTER TABLE b ADD FOREIGN KEY (id, PERIOD at) REFERENCES a (id, PERIOD at)",
    )
    lines = str(made).splitlines()
    assert "        daterange at PK" in lines
    assert '        daterange at FK "NULL"' in lines
    assert lines[-1] == '    a |o--o{ b : "id, at"'


def test_a_table_that_refers_to_itself_has_a_line_to_itself(draw: Draw) -> None:
    made = draw("CREATE TABLE a (id int PRIMARY KEY, parent int REFERENCES a)")
    assert str(made).splitlines()[-1] == "    a |o--o{ a : parent"


def test_a_key_to_a_table_that_is_not_drawn_is_no_line(draw: Draw) -> None:
    made = draw("CREATE TABLE a (user_id int REFERENCES public.auth_user)")
    assert "--" not in str(made)
    assert 'integer user_id FK "NULL"' in str(made)


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("a int PRIMARY KEY", "integer a PK"),
        ("a int UNIQUE NOT NULL", "integer a UK"),
        ("a int UNIQUE NULLS NOT DISTINCT NOT NULL", "integer a UK"),
        ("a int UNIQUE REFERENCES it", 'integer a FK, UK "NULL"'),
        ("a int PRIMARY KEY REFERENCES it", "integer a PK, FK"),
        ("a int NOT NULL, b int, UNIQUE (a, b)", "integer a"),
        ("a numeric(10, 2) NOT NULL", "numeric(10-2) a"),
        ("a timestamptz[] NOT NULL", "timestamptz[] a"),
        ("a double precision NOT NULL", "float8 a"),
    ],
)
def test_a_column_has_its_type_and_keys(draw: Draw, sql: str, line: str) -> None:
    run("CREATE TABLE public.it (id int PRIMARY KEY)")
    assert f"        {line}\n" in str(draw(f"CREATE TABLE t ({sql})"))


ODD = [
    *[
        "a b",
        'say "hi"',
        'ends in "',
        "Title, of it",
        "a (b)",
        "a)(b",
        "100%",
        "%%",
        "back\\slash",
        "Größe ✓",
    ],
    *["a.b", "-", "a-b", "{", "}", "it's", "<script>", "#35;", ":::x", "; x", "a`b", "line\nbreak", "a~b~c"],
    *["2024_sales", "1", "42", "1.5", "u", "x USING y", "x) REFERENCES y(z"],
    # Words of the grammar itself, which takes them in any case.
    *["pk", "FK", "uk", "pk-x", "one", "only one", "to", "many", "style", "class", "classDef", "end"],
    *["erDiagram", "title", "accTitle", "subgraph", "direction"],
]


@pytest.mark.needs("node")
@pytest.mark.parametrize("name", ODD)
def test_any_name_is_drawn(draw: Draw, understood: Read, name: str) -> None:
    this = quoted(name)
    made = draw(
        f"CREATE TABLE {this} ({this} int PRIMARY KEY)",
        f"CREATE TABLE {quoted(name + ' too')} ({this} int UNIQUE REFERENCES {this})",
    )
    found = understood(made)
    assert [len(columns) for columns in found["tables"].values()] == [1, 1]
    first, second = found["tables"]
    assert (found["tables"][first][0]["type"], found["tables"][first][0]["keys"]) == ("integer", ["PK"])
    assert found["tables"][second][0]["keys"] == ["FK", "UK"]
    ((target, one, many, source, _),) = found["keys"]
    assert (target, one, many, source) == (first, "ZERO_OR_ONE", "ZERO_OR_ONE", second)


@pytest.mark.needs("node")
def test_two_tables_are_never_drawn_as_one(draw: Draw, understood: Read) -> None:
    names = ['a"b', "a'b", "a b", "a_b", "é", "è", "-", "+"]
    found = understood(draw(*[f"CREATE TABLE {quoted(name)} (id int)" for name in names]))
    assert len(found["tables"]) == len(names)


@pytest.mark.needs("node")
def test_letters_of_any_language_stay(draw: Draw, understood: Read) -> None:
    found = understood(draw('CREATE TABLE "Städte" ("Größe" int, "都市" int)'))
    assert {name: [column["name"] for column in drawn] for name, drawn in found["tables"].items()} == {
        "Städte": ["Größe", "都市"]
    }


@pytest.mark.needs("node")
@pytest.mark.parametrize("name", ["pk", "Odd, type", "1x", "a.b", "a}b", 'say "hi"', "é", "-", "100%"])
def test_any_type_is_drawn(draw: Draw, understood: Read, name: str) -> None:
    run(f"CREATE TYPE {quoted(name)} AS ENUM ('a')")
    found = understood(
        draw(f"CREATE TABLE t (one {quoted(name)}, two {quoted(name)}[], three bit varying(3))")
    )
    assert [column["name"] for column in found["tables"]["t"]] == ["one", "two", "three"]


@pytest.mark.needs("node")
@pytest.mark.parametrize("name", ["there", "Great Library"])
def test_a_line_leads_into_another_schema(draw: Draw, understood: Read, name: str) -> None:
    run(f"CREATE SCHEMA {quoted(name)}", f"CREATE TABLE {quoted(name)}.book (id int PRIMARY KEY)")
    run(f"CREATE TABLE here.loan (book_id int NOT NULL REFERENCES {quoted(name)}.book)")
    found = understood(diagram(snapshot(schemas=["here", name])))
    assert found["keys"] == [[f"{name}.book", "ONLY_ONE", "ZERO_OR_MORE", "loan", "book_id"]]


@pytest.mark.needs("node")
def test_a_table_without_columns_and_a_database_without_tables_are_drawn(
    draw: Draw, understood: Read
) -> None:
    assert understood(draw()) == {"tables": {}, "keys": []}
    assert understood(draw("CREATE TABLE bare ()")) == {"tables": {"bare": []}, "keys": []}
    assert set(understood(diagram())["tables"]) == set(snapshot(schemas=["public"]).tables) | {"bare"}
