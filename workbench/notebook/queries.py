"""The magic ``%%queries``: a cell, and what it asked of the database."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.display import display

from workbench.notebook import nested
from workbench.notebook.line import Parser, words
from workbench.notebook.request import content
from workbench.queries.asked import SHOWN, Asked


def register(shell: InteractiveShell) -> None:
    shell.register_magics(QueriesMagics)


@magics_class
class QueriesMagics(Magics):
    @cell_magic
    def queries(self, line: str, cell: str) -> None:
        """Run the cell, and show the SQL that it ran, with rows, times and advice.

        --plan shows Postgres' plan of each statement, --analyze runs those that only read a second time to
        see what each step really did. --slow 10 shows those that took 10 milliseconds, --all more than the
        20 that took longest, --facts what is the same each time, for an output that is compared.
        ``with queries() as asked:`` does it in code.

        Examples::

            %%queries
            for book in Book.objects.all():
                print(book.author.name)

            %%queries --plan
            Book.objects.filter(author__name="J.R.R. Tolkien").count()
        """
        assert self.shell is not None
        asked = _parser().parse_args(words(line))
        nested.check(
            self.shell,
            cell,
            "%%queries cannot wait for an await: put 'with queries() as asked:' around it, and look at "
            "asked.",
        )
        recorded = Asked(
            plan=asked.plan,
            analyze=asked.analyze,
            most=None if asked.all else SHOWN,
            slow=asked.slow / 1000,
            cell=_seen(self.shell, cell),
        )
        with recorded:
            result = nested.run(self.shell, cell)
        display(recorded.facts if asked.facts else recorded)
        result.raise_error()


def _seen(shell: Any, cell: str) -> str:
    """Return the text of the whole cell as a person sees it, which ends with the one below the magic."""
    code = content(shell).get("code", "")
    return code if code.rstrip().endswith(cell.rstrip()) else f"%%queries\n{cell}"


def _parser() -> Parser:
    parser = Parser("%%queries")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--analyze", action="store_true")
    parser.add_argument("--slow", type=float, default=0.0, metavar="MILLISECONDS")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--facts", action="store_true")
    return parser
