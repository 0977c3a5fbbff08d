"""The magic, and what a cell says of the branch that it runs on, in real kernels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.conftest import Manage, scratch
from tests.kernel import Kernel
from tests.throwaway import PROJECT, environment

ON = "On branch try-country"
AGAIN = "Author and Book are the classes of catalog.models again."
AT_0001 = "Author and Book are now as of 0001_initial: Author has no country."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with scratch() as made:
        yield made


@pytest.fixture(scope="module")
def running(url: str) -> Iterator[Kernel]:
    with Kernel({"DATABASE_URL": url, "WORKBENCH_YES": "1"}) as kernel:
        assert kernel.run("%manage migrate -v 0\nAuthor.objects.create(name='Ada')").error == []
        yield kernel


@pytest.fixture
def kernel(running: Kernel) -> Iterator[Kernel]:
    """A kernel on main, with a branch to go to."""
    assert running.run("%branch create try-country").error == []
    yield running
    running.run("%branch use main")
    assert running.run("%branch drop try-country --end").error == []
    assert len(running.run("%branch list").result.splitlines()) == 2


MISTAKES = {
    "use try-county": "There is no branch try-county: did you mean try-country?",
    "creat x": "There is no %branch creat: did you mean create?",
    "xyzzy": "There is no %branch xyzzy: there is create, use, list, diff, reset, drop and rename.",
    "create x --form main": "unrecognized arguments: --form main. The line is: %branch ",
    "create": (
        "the following arguments are required: name. The line is: %branch create [--database ALIAS] "
        "[--from BRANCH] [--expires 2h] [--end] name"
    ),
    "create x --expires 2y": "argument --expires: '2y' is no time: write 30m, 2h or 3d. The line is: ",
    "create 'x": "This line cannot be read: No closing quotation. Close its quotes.",
    "drop": "main is never dropped: give the name of another branch.",
    "create try-country --from empty": (
        "There is a branch try-country already: %branch use try-country goes there, %branch drop "
        "try-country removes it."
    ),
}


def test_a_mistake_is_one_sentence_without_a_traceback(kernel: Kernel) -> None:
    for line, said in MISTAKES.items():
        (shown,) = kernel.run(f"%branch {line}").error
        assert shown.startswith(said)
        assert "\n" not in shown


def test_a_block_in_an_open_transaction_is_one_sentence(kernel: Kernel) -> None:
    kernel.run("block = transaction.atomic(); block.__enter__()")
    assert kernel.run("with branch('scratch'): pass").error == [
        "A transaction is open: commit it or roll it back first."
    ]
    kernel.run("block.__exit__(None, None, None)")


def test_every_output_says_on_which_branch_its_cell_ran_and_none_on_main(kernel: Kernel) -> None:
    assert kernel.run("1 + 1").result == "2"
    assert kernel.run("%branch use try-country").result == "This notebook is on try-country now."
    for cell, result in {
        "1 + 1": "2",
        "x = 1": "",
        "def f(": "",
        "%%diff\nAuthor.objects.all().delete()": "(1, {'catalog.Author': 1})",
    }.items():
        assert kernel.run(cell).result.startswith(ON + result), cell
        assert kernel.run(cell).result.count(ON) == 1, cell
    assert "branch     try-country" in kernel.run("%branch").result.replace("branch    ", "branch     ")
    assert kernel.run("%branch use main").result == "This notebook is on main now."
    assert kernel.run("Author.objects.count()").result == "1"


def test_a_cell_that_goes_elsewhere_says_where_it_was_and_where_it_is(kernel: Kernel) -> None:
    kernel.run("%branch use try-country")
    gone = kernel.run("from workbench import branches\nbranches.use('main').name")
    assert (gone.result, gone.updated) == (f"{ON}'main'", f"{ON}, then on branch main")
    assert kernel.run("where().branch").result == "''"


def test_names_follow_to_the_branch_and_back_and_nobody_is_said_to_have_migrated(kernel: Kernel) -> None:
    kernel.run("%branch use try-country")
    assert kernel.run("%manage migrate catalog 0001 -v 0").stdout.splitlines() == [AT_0001]
    assert kernel.run("%branch diff main catalog").result == (
        f"{ON}catalog_author\n  - column  country  varchar(100) NOT NULL"
    )
    assert kernel.run("%branch use main").stdout.splitlines() == [AGAIN]
    back = kernel.run("Author.objects.get().country")
    assert (back.stdout, back.result) == ("", "''")
    assert kernel.run("%branch use try-country").stdout.splitlines() == [AT_0001]
    assert kernel.run("Author").result == f"{ON}<class 'catalog.Author' as of 0001_initial>"
    reset = kernel.run("%branch reset")
    assert (reset.stdout.splitlines(), reset.result) == ([AGAIN], f"{ON}try-country is again a copy of main.")
    assert kernel.run("%manage migrate catalog 0001 -v 0").stdout.splitlines() == [AT_0001]
    dropped = kernel.run("%branch drop")
    assert dropped.stdout.splitlines() == [AGAIN]
    assert dropped.result == "try-country is dropped. This notebook is on main again."
    kernel.run("%branch create try-country")


def test_names_follow_within_a_cell_into_a_block_and_out_of_it(kernel: Kernel) -> None:
    outcome = kernel.run(
        "with branch('scratch'):\n"
        "    %manage migrate catalog 0001 -v 0\n"
        "    print(Author.objects.count(), where().branch)\n"
        "    with branch('inner', parent='try-country'):\n"
        "        print(Author.objects.get().country == '', where().branch)\n"
        "    with branch('blank', parent='empty'), transaction.atomic():\n"
        "        print(connection.introspection.table_names())\n"
        "print(Author.objects.get().country == '', where().branch == '')"
    )
    assert outcome.error == []
    assert outcome.stdout.splitlines() == [
        AT_0001,
        "1 scratch",
        AGAIN,
        "True inner",
        AT_0001,
        "There is no Author or Book in the database: no migration of catalog is applied.",
        "[]",
        AT_0001,
        AGAIN,
        "True True",
    ]


def test_what_a_process_that_was_killed_left_is_removed_and_said(
    kernel: Kernel, url: str, manage: Manage
) -> None:
    kernel.run("connection.close()")
    code = "import os\nfrom workbench.branches import branch\nwith branch('scratch'): os.kill(os.getpid(), 9)"
    assert manage("shell", "-c", code, DATABASE_URL=url).returncode == -9
    listed = kernel.run("%branch list")
    for _ in range(50):
        # The server may need a moment to notice.
        if listed.stdout:
            break
        time.sleep(0.1)
        listed = kernel.run("%branch list")
    assert listed.stdout == "Removed what was left: scratch, whose process is gone.\n"
    assert "scratch" not in listed.result


def test_an_interrupted_block_is_left_and_its_branch_dropped(kernel: Kernel) -> None:
    outcome = kernel.run(
        "with branch('scratch'): connection.cursor().execute('SELECT pg_sleep(30)')", interrupt_after=0.7
    )
    assert outcome.error == ["KeyboardInterrupt: the query was cancelled."]
    assert kernel.run("where().branch, Author.objects.count()").result == "('', 1)"


def test_another_kernel_on_main_is_named_and_only_ended_if_told_to(kernel: Kernel, url: str) -> None:
    with Kernel({"DATABASE_URL": url, "JPY_SESSION_NAME": "/home/ada/notebooks/01_migrate.ipynb"}) as other:
        # With something of its own, or it might let go of the session.
        assert other.run("frames = frame.chunks(Author)\nlen(next(frames))").result == "1"
        database = urlsplit(url).path[1:]
        said = (
            rf"^01_migrate\.ipynb \(idle for .*\) is connected to {database}: shut down its kernel, or end "
            rf"its session with {{}}\.$"
        )
        for cell, word in {
            "%branch create more": "--end",
            "%manage branch create more": "--end",
            "with branch('more'): pass": "end_sessions=True",
            "rehearse('catalog', '0001')": "end_sessions=True",
            "%manage rehearse catalog 0001": "--end",
        }.items():
            (shown,) = kernel.run(cell).error
            assert re.match(said.format(word), shown), (cell, shown)
        nothing = "Nothing to rehearse: everything asked for is applied."
        assert kernel.run("rehearse(end_sessions=True)").result == nothing
        assert other.run("next(frames, None) is None").result == "True"
        assert kernel.run("%branch create more --end").result == "more is a copy of main."
        assert other.run("Author.objects.count()").result == "1"
        other.run("connection.close()")
    kernel.run("%branch drop more")


def test_a_terminal_says_it_in_its_prompt(kernel: Kernel, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--ext", "workbench.notebook.extension"],
        cwd=PROJECT,
        env=environment({"DATABASE_URL": url, "IPYTHONDIR": os.devnull}),
        input="1 + 1\n%branch use try-country\n2 + 2\n%branch use main\n3 + 3\n",
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert "\nIn [1]: Out[1]: 2" in done.stdout, done.stderr
    assert "\nOn branch try-country: In [3]: Out[3]: 4" in done.stdout
    assert "\nIn [5]: Out[5]: 6" in done.stdout
