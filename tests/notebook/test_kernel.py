"""The kernel as a person meets it: a real one, cell by cell."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.kernel import Kernel
from tests.throwaway import PROJECT


def test_models_and_the_usual_names_are_there_and_queries_work_at_once(kernel: Kernel) -> None:
    names = "Author, Book, User, Count, Q, models, migrations, transaction, settings, pd, connection, where"
    assert kernel.run(f"{names}; 'all there'").result == "'all there'"
    kernel.run("%manage migrate -v 0")
    assert kernel.run("Author.objects.count() >= 0").result == "True"
    assert kernel.run("await Author.objects.acount() >= 0").result == "True"


def test_the_settings_and_the_project_come_with_the_kernel_wherever_the_notebook_lies(tmp_path: Path) -> None:
    with Kernel({"DJANGO_SETTINGS_MODULE": ""}, cwd=tmp_path) as kernel:
        assert kernel.run("settings.ROOT_URLCONF").result == "'workbench.urls'"
        assert kernel.run("import catalog; Author.__module__").result == "'catalog.models'"


def test_a_notebook_runs_the_checkout_that_it_lies_in(tmp_path: Path) -> None:
    quote = "" if os.name == "nt" else '"'
    checkout = tmp_path / f"it's {quote}another{quote} 100%s {{checkout}}"
    for name in ("catalog", "workbench", "notebooks"):
        shutil.copytree(PROJECT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    with Kernel(cwd=checkout / "notebooks") as kernel:
        assert kernel.run("str(settings.BASE_DIR)").result == repr(str(checkout))
        assert str(checkout) in kernel.run("!python -c 'import catalog; print(catalog.__file__)'").stdout


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"DATABASE_URL": "mysql://alex:s3cr3t@host/db"}, "the workbench needs Postgres"),
        ({"PYTHONPATH": "{broken}"}, "RuntimeError: broken app"),
    ],
)
def test_where_django_cannot_be_set_up_every_cell_says_why_in_one_line(
    tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'catalog.models': raise RuntimeError('broken app')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {name: value.format(broken=tmp_path) for name, value in environment.items()}
    with Kernel(environment) as kernel:
        for cell in ("Author.objects.count()", "%manage migrate", "1 + 1"):
            outcome = kernel.run(cell)
            (line,) = outcome.error
            assert line.startswith("Django could not be set up. ")
            assert reason in line
            assert "restart the kernel" in line
            assert "s3cr3t" not in line


def test_an_interrupted_query_is_cancelled_on_the_server_and_the_next_cell_works(kernel: Kernel) -> None:
    kernel.run("cursor = connection.cursor()")
    outcome = kernel.run("cursor.execute('SELECT pg_sleep(30) -- slept')", interrupt_after=0.7, timeout=25)
    assert outcome.error == ["KeyboardInterrupt: the query was cancelled."]
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%slept'"
    assert kernel.run(f'cursor.execute("{running}"); cursor.fetchone()').result == "(0,)"


def test_a_second_interrupt_right_after_the_first_is_none_of_the_next_cells(kernel: Kernel) -> None:
    for pause in (0.01, 0.05, 0.1):
        request = kernel.begin("connection.cursor().execute('SELECT pg_sleep(30)')")
        kernel.await_start(request)
        time.sleep(0.3)
        kernel.interrupt()
        time.sleep(pause)
        kernel.interrupt()
        # Sooner than the query by itself; what is said of the first the second may end.
        kernel.finish(request, timeout=25)
        time.sleep(0.3)
    outcome = kernel.run("connection.cursor().execute('SELECT pg_sleep(30)')", interrupt_after=0.7)
    assert outcome.error == ["KeyboardInterrupt: the query was cancelled."]


def test_an_interrupt_before_a_cell_that_cannot_be_read_does_not_end_the_next(kernel: Kernel) -> None:
    kernel.run(
        "import os, signal\n"
        "def interrupt(*_, once=[1]):\n"
        "    if once: once.pop(); os.kill(os.getpid(), signal.SIGINT)\n"
        "from workbench.notebook.interrupt import before_cell\n"
        "before_cell(get_ipython(), interrupt)"
    )
    assert kernel.run("1 +").error
    assert kernel.run("1 + 1").result == "2"


def test_a_connection_that_died_between_two_cells_is_replaced(kernel: Kernel) -> None:
    kernel.run("%manage migrate -v 0")
    kernel.run(
        "import psycopg2; connection.ensure_connection()\n"
        "other = psycopg2.connect(**{**connection.get_connection_params(), 'cursor_factory': None})\n"
        "other.autocommit = True\n"
        "pid = connection.connection.info.backend_pid\n"
        "other.cursor().execute('SELECT pg_terminate_backend(%s)', [pid])\n"
        "other.close()"
    )
    assert kernel.run("Author.objects.count() >= 0").result == "True"


def test_so_is_one_of_the_thread_that_asynchronous_queries_run_in(kernel: Kernel) -> None:
    kernel.run("%manage migrate -v 0")
    assert kernel.run("await Author.objects.acount() >= 0").result == "True"
    kernel.run(
        "connection.cursor().execute('SELECT pg_terminate_backend(pid) FROM pg_stat_activity '\n"
        "    'WHERE datname = current_database() AND pid <> pg_backend_pid()')"
    )
    assert kernel.run("await Author.objects.acount() >= 0").result == "True"


def test_a_connection_that_is_too_old_is_replaced(kernel: Kernel) -> None:
    kernel.run("connection.ensure_connection(); connection.close_at = 0; before = connection.connection")
    kernel.run("connection.ensure_connection()")
    assert kernel.run("connection.connection is before, before.closed > 0").result == "(False, True)"


def test_a_failed_statement_does_not_spoil_the_next_cell(kernel: Kernel) -> None:
    kernel.run("cursor = connection.cursor()")
    failed = kernel.run("cursor.execute('BEGIN'); cursor.execute('SELECT 1/0')")
    assert "DataError" in "".join(failed.error)
    assert "rolled back" in failed.stderr
    assert kernel.run("cursor.execute('SELECT 42'); cursor.fetchone()").result == "(42,)"


def test_a_transaction_may_span_cells_and_a_failure_in_it_says_that_it_is_over(kernel: Kernel) -> None:
    kernel.run("%manage migrate -v 0")
    kernel.run("transaction.set_autocommit(False)")
    kernel.run("Author.objects.create(name='only mine')")
    assert kernel.run("Author.objects.filter(name='only mine').count()").result == "1"
    assert "rolled back" in kernel.run("connection.cursor().execute('SELECT 1/0')").stderr
    assert kernel.run("Author.objects.filter(name='only mine').count()").result == "0"


def test_a_missing_database_is_one_line_in_a_cell(scratch_url: str) -> None:
    missing = scratch_url.replace("/scratch_", "/missing_")
    with Kernel({"DATABASE_URL": missing}) as kernel:
        for cell in ("list(Author.objects.all())", "where()"):
            (line,) = kernel.run(cell).error
            assert line.startswith("There is no database missing_")
            # It has read the settings, and would fail again.
            assert line.endswith(
                "A changed DATABASE_URL counts from the next restart of the kernel (Kernel menu)."
            )
        (line,) = kernel.run("%manage showmigrations").error
        assert line.startswith("There is no database missing_")


def test_the_kernel_of_this_environment_is_ours() -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("workbench")
    assert spec.argv[0] == sys.executable
    assert spec.env["DJANGO_SETTINGS_MODULE"] == "workbench.settings"
