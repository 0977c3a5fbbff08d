"""What would do harm in a cell: as an argument of a magic, and as a text in what is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import ANY, NASTY, examples
from tests.kernel import Kernel
from tests.schema.test_hostile import harmless
from tests.throwaway import EVERYTHING, PROJECT
from workbench.notebook.branch import _badge
from workbench.notebook.tables import as_html
from workbench.show import UNSEEN, Code, Grid, Part, Row, Shown, Words

LINES = [
    "%manage migrate {}",
    "%manage migrate catalog {}",
    "%manage sqlmigrate catalog {}",
    "%manage {}",
    "%manage help {}",
    "%branch use {}",
    "%branch create {}",
    "%branch drop {}",
    "%branch diff {}",
    "%evolve {}",
    "%evolve catalog --rename {}",
    "%evolve catalog --from {}",
    "%evolve catalog --database {}",
    "%%evolve catalog --name {}\nclass Author(models.Model):\n    name = models.TextField()",
    "%%diff {}\n1",
    "%%queries --slow {}\n1",
    "%workbench {}",
    "frame('SELECT %s AS a', {!r}, 1)",
    "models_at({!r})",
    "models_at('catalog', {!r})",
    "snapshot({!r})",
    "diagram({!r})",
    "states({!r})",
    "timeline('catalog', {!r})",
    "rehearse({!r})",
    "where({!r})",
    "who_blocks({!r})",
    "branch({!r}).__enter__()",
]
SOME = ["'; DROP TABLE victim; --", "../../x", "a\n\x1b[31m", "{}"]
TEXTS = NASTY if os.environ.get(EVERYTHING) else SOME


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel({"JPY_SESSION_NAME": "/x/'; DROP TABLE victim; -- \x1b[31m%s{}.ipynb"}) as running:
        running.run("%manage migrate -v 0")
        yield running


FRAMES = st.builds(
    lambda names, values, index: pd.DataFrame(
        [values] * 2, columns=names, index=pd.Index([*index], name=names[0])
    ),
    st.lists(ANY, min_size=2, max_size=2),
    st.lists(st.one_of(ANY, ANY.map(lambda text: [text]), ANY.map(str.encode)), min_size=2, max_size=2),
    st.lists(ANY, min_size=2, max_size=2),
)


@given(data=FRAMES, text=ANY)
@examples(15)
def test_what_is_shown_as_html_holds_no_html_of_others(data: pd.DataFrame, text: str) -> None:
    harmless(as_html(data) or "")
    harmless(as_html(data.T) or "")
    harmless(as_html(data.iloc[:, 0]) or "")
    parts: list[Part] = [
        Words(text),
        Grid(text, [Row([text, text])], (text, text)),
        Code(text, "postgres", text),
        Code(text, "python", text, is_folded=True),
    ]
    for part in parts:
        shown = Given(part)
        harmless(shown._repr_html_())
        assert not UNSEEN.search(repr(shown))
    harmless(_badge(text)["text/html"])


class Given(Shown):
    def __init__(self, part: Part) -> None:
        self.part = part

    def _parts(self) -> Iterator[Part]:
        yield self.part


def files() -> set[Path]:
    return {*PROJECT.parent.glob("*"), *PROJECT.glob("*"), *PROJECT.glob("catalog/**/*.py")}


@pytest.mark.parametrize("line", LINES)
def test_an_argument_is_an_argument(kernel: Kernel, line: str) -> None:
    before = files()
    names = "{each.name for each in _branches()}"
    kernel.run("from workbench.branches import branches as _branches")
    kernel.run(f"before, there = snapshot(), {names}")
    for text in TEXTS:
        said = text if "!r" in line else " ".join(text.split())
        outcome = kernel.run(line.format(said))
        assert len(outcome.error) <= 1 or "SyntaxError" in outcome.error[-1], (text, outcome.error)
        assert len(outcome.error) > 1 or "\x1b" not in "".join(outcome.error), text
    assert kernel.run("snapshot() == before").result == "True"
    # Some of them are names that a branch may have.
    if not line.startswith(("%branch create", "%branch drop")):
        assert kernel.run(f"there == {names}").result == "True"
    assert files() == before
