from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import certifi
import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Manage
from tests.throwaway import PROJECT
from workbench.connection import DatabaseURLError, database, duration
from workbench.redaction import redacted

HOME = Path("/project/.workbench")
PASSWORD = "s3cr3t-hunter2"
NEON = "ep-cool-darkness-123456.us-east-2.aws.neon.tech"
POOLED = "ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech"


def read(url: str, others: dict[str, str] | None = None, *, web: bool = False) -> dict[str, Any]:
    return database({"DATABASE_URL": url, **(others or {})}, home=HOME, web=web)


MALFORMED = [
    (f"alex:{PASSWORD}@host/db", "is not an address"),
    (f"host=h dbname=db password={PASSWORD}", "is not an address"),
    (f"postgresql:/alex:{PASSWORD}@host/db", "is not an address"),
    (f"psql 'postgresql://alex:{PASSWORD}@host/db'", "psql command"),
    (f'psql "postgresql://alex:{PASSWORD}@host/db?sslmode=require"', "psql command"),
    (f"'postgresql://alex:{PASSWORD}@host/db'", "quotes"),
    (f"DATABASE_URL=postgresql://alex:{PASSWORD}@host/db", "repeats its own name"),
    (f"mysql://alex:{PASSWORD}@host/db", "needs Postgres"),
    (f"postgresql+psycopg://alex:{PASSWORD}@host/db", "write postgresql:// instead"),
    (f"jdbc:postgresql://alex:{PASSWORD}@host/db", "write postgresql:// instead"),
    (f"postgresql://alex:{PASSWORD}#1@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD}/1@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD}?1@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD}@1@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD}%zz@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD} 1@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD}[1@host/db", "percent-encoded"),
    (f"postgresql://alex:12/{PASSWORD}@host/db", "percent-encoded"),
    (f"postgresql://alex:{PASSWORD}%00@host/db", "NUL"),
    (f"postgresql://alex:{PASSWORD}@host:99999/db", "port"),
    (f"postgresql://alex:{PASSWORD}@host:abc/db", "port"),
    (f"postgresql://alex:{PASSWORD}@host", "names no database"),
    (f"postgresql://alex:{PASSWORD}@host/", "names no database"),
    (f"postgresql://alex:{PASSWORD}@host/a/b", "slash in its database name"),
    (f"postgresql://alex:{PASSWORD}@/db", "names no host"),
    (f"postgresql://alex:{PASSWORD}@<host>/db", "placeholder"),
    (f"postgresql://alex:{PASSWORD}@host/db?sslmode=on", "unknown sslmode"),
    (f"postgresql://alex:{PASSWORD}@host/db?pgbouncer=true", "does not know, pgbouncer"),
    (f"postgresql://alex:{PASSWORD}@host/db?sslmode=require&sslmode=prefer", "more than once"),
    (f"postgresql://alex:{PASSWORD}@host/db?dbname=other", "would hide the one before"),
    (f"postgresql://alex@host/db?password={PASSWORD}", "would hide the one before"),
    (f"postgresql://alex:{PASSWORD}@host/db#fragment", "cannot be read"),
    (f"postgresql://alex:{PASSWORD}@[::1/db", "cannot be read"),
    (f"postgresql://alex:****************@{NEON}/neondb", "masked password"),
    ("postgresql://USER:PASSWORD@HOST/DATABASE", "placeholder"),
]


@pytest.mark.parametrize(("url", "complaint"), MALFORMED)
def test_a_malformed_address_ends_in_one_sentence_without_the_password(url: str, complaint: str) -> None:
    with pytest.raises(DatabaseURLError) as raised:
        read(url)
    message = str(raised.value)
    assert complaint in message
    assert message.startswith("DATABASE_URL ")
    assert message.endswith((".", ")."))
    assert "\n" not in message
    assert PASSWORD not in message


@given(password=st.text(st.characters(exclude_categories=["Cs"]), min_size=8))
def test_no_message_ever_shows_an_unencoded_password(password: str) -> None:
    message = ""
    try:
        entry = read(f"postgresql://alex:{password}@host/database")
    except DatabaseURLError as error:
        message = str(error)
    else:
        assert entry["HOST"] == "host"
    assert password not in message


@given(
    user=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0*•….")),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1),
)
def test_whatever_is_percent_encoded_arrives_as_it_was(user: str, password: str, name: str) -> None:
    address = f"{quote(user, safe='')}:{quote(password, safe='')}@host:5433/{quote(name, safe='')}"
    entry = read(f"postgresql://{address}")
    assert (entry["USER"], entry["PASSWORD"], entry["NAME"]) == (user, password, name)
    assert (entry["HOST"], entry["PORT"]) == ("host", 5433)


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_address_means_the_embedded_server(blank: str) -> None:
    entry = read(blank)
    assert entry["EMBEDDED"] == str(HOME)
    assert "sslmode" not in entry["OPTIONS"]


def test_neon_is_reached_over_tls_with_patience_and_without_stale_connections() -> None:
    entry = read(f"  postgres://alex:pw@{NEON}/neondb?channel_binding=require\n")
    assert entry["HOST"] == NEON
    assert entry["OPTIONS"]["sslmode"] == "require"
    assert entry["OPTIONS"]["channel_binding"] == "require"
    assert entry["OPTIONS"]["connect_timeout"] == 15
    assert entry["CONN_MAX_AGE"] == 240
    assert entry["CONN_HEALTH_CHECKS"] is True


def test_what_the_address_says_wins_over_the_defaults() -> None:
    options = read("postgresql://a:b@h/db?connect_timeout=3&application_name=mine&sslmode=disable")["OPTIONS"]
    assert (options["connect_timeout"], options["application_name"]) == (3, "mine")
    assert options["sslmode"] == "disable"


def test_a_secret_among_the_options_is_shown_nowhere() -> None:
    url = "postgresql://a:b@h/db?sslpassword=KeyPassw0rd%2F99"
    entry = read(url)
    assert entry["OPTIONS"]["sslpassword"] == "KeyPassw0rd/99"
    assert "KeyPassw0rd" not in redacted(url) + repr(entry)


@pytest.mark.parametrize("root", ["", "&sslrootcert=system"])
def test_a_certificate_is_checked_against_a_bundle_that_exists(root: str) -> None:
    options = read(f"postgresql://a:b@{NEON}/db?sslmode=verify-full{root}")["OPTIONS"]
    assert options["sslrootcert"] == certifi.where()


@pytest.mark.parametrize(
    "host", [POOLED, "ep-x-pooler.c-8.us-east-1.aws.neon.tech", "db-pooler", "db-pooler.lan"]
)
def test_notebooks_and_commands_go_past_a_pooler(host: str) -> None:
    direct = read(f"postgresql://a:b@{host}/db")
    assert direct["HOST"] == host.replace("-pooler", "")
    assert not direct["DISABLE_SERVER_SIDE_CURSORS"]
    web = read(f"postgresql://a:b@{host}/db", web=True)
    assert web["HOST"] == host
    assert web["DISABLE_SERVER_SIDE_CURSORS"] is True


def test_a_host_after_the_question_mark_is_a_host_like_any_other() -> None:
    entry = read(f"postgresql://a:b@/db?host={POOLED}&port=5433")
    assert (entry["HOST"], entry["PORT"], entry["OPTIONS"]["sslmode"]) == (NEON, 5433, "require")
    assert read("postgresql://a@/db?host=/var/run/postgresql")["HOST"] == "/var/run/postgresql"


def test_a_host_that_only_contains_the_word_is_no_pooler() -> None:
    host = "my-pooler-tests.example.org"
    assert read(f"postgresql://a:b@{host}/db")["HOST"] == host


@pytest.mark.parametrize(
    "variable", ["DATABASE_URL_UNPOOLED", "DATABASE_URL_DIRECT", "POSTGRES_URL_NON_POOLING"]
)
def test_a_direct_address_of_its_own_is_preferred(variable: str) -> None:
    others = {variable: "postgresql://a:c@direct.example/db"}
    assert read(f"postgresql://a:b@{POOLED}/db", others)["HOST"] == "direct.example"
    web = read("postgresql://a:b@pool.example:6543/db", others, web=True)
    assert (web["HOST"], web["DISABLE_SERVER_SIDE_CURSORS"]) == ("pool.example", True)


@pytest.mark.parametrize("other", ["a:b@h/other", "b:b@h/db", f"a:b@{NEON.replace('cool', 'warm')}/db"])
def test_a_direct_address_that_leads_to_another_database_is_refused(other: str) -> None:
    with pytest.raises(DatabaseURLError, match="DATABASE_URL_UNPOOLED name different databases"):
        read(f"postgresql://a:b@{POOLED}/db", {"DATABASE_URL_UNPOOLED": f"postgresql://{other}"})


def test_a_pooled_address_in_the_place_of_the_direct_one_is_passed_by_too() -> None:
    pooled = f"postgresql://a:b@{POOLED}/db"
    assert read(pooled, {"DATABASE_URL_UNPOOLED": pooled})["HOST"] == NEON


def test_options_that_a_pooler_refuses_are_refused_only_where_it_is_used() -> None:
    url = f"postgresql://a:b@{POOLED}/db?options=-csearch_path%3Dx"
    assert read(url)["OPTIONS"]["options"] == "-csearch_path=x"
    with pytest.raises(DatabaseURLError, match="ALTER ROLE"):
        read(url, web=True)


def test_a_command_says_it_in_one_line(manage: Manage) -> None:
    done = manage("migrate", DATABASE_URL=f"postgresql://alex:{PASSWORD}#@host/db")
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("DATABASE_URL has characters")


def test_importing_the_settings_starts_nothing(tmp_path: Path) -> None:
    code = (
        "import subprocess, socket; "
        "subprocess.Popen.__init__ = socket.socket.__init__ = lambda *a, **k: 1 / 0; "
        "import workbench.settings as s; print(s.DATABASES['default']['NAME'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env={"WORKBENCH_HOME": str(tmp_path / "home"), "WORKBENCH_ENV_FILE": "/dev/null"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "workbench", done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_how_long_a_silence_is_is_a_number_of_seconds(text: str) -> None:
    assert read("postgresql://a:b@h/db", {"WORKBENCH_SILENCE": " 2.5 "})["SILENCE"] == 2.5
    assert "SILENCE" not in read("postgresql://a:b@h/db", {"WORKBENCH_SILENCE": ""})
    with pytest.raises(DatabaseURLError, match="write a number of seconds, such as 5"):
        read("postgresql://a:b@h/db", {"WORKBENCH_SILENCE": text})


def test_no_setting_holds_the_environment_and_a_relative_home_is_in_the_project(manage: Manage) -> None:
    secret = {"UNRELATED_TOKEN": PASSWORD, "WORKBENCH_HOME": "elsewhere"}
    shown = manage("diffsettings", "--all", **secret).stdout
    assert PASSWORD not in shown
    assert str(PROJECT / "elsewhere") in shown


def test_the_environment_wins_over_the_file_and_the_file_may_come_from_notepad(
    tmp_path: Path, manage: Manage
) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfDATABASE_URL=postgresql://from-the-file\r\n")
    from_file = manage("check", WORKBENCH_ENV_FILE=str(file), DATABASE_URL=None)
    assert "names no database" in from_file.stderr
    blank_wins = manage("check", WORKBENCH_ENV_FILE=str(file), DATABASE_URL="")
    assert blank_wins.returncode == 0, blank_wins.stderr


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", "10min"),
        ("90s", "90s"),
        (" 1.5h ", "1.5h"),
        ("250 ms", "250 ms"),
        ("0", "0"),
        ("0min", "0"),
        ("24d", "24d"),
    ],
)
def test_a_span_of_time_is_read_as_postgres_writes_it(text: str, read: str) -> None:
    assert duration({"LIMIT": text}, "LIMIT", default="10min") == read


@pytest.mark.parametrize(
    "text", ["600", "ten", "-1s", "10 minutes", "25d", "1e3s", "1s; x", "9" * 400 + "s", "٣s"]
)
def test_a_span_of_time_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        duration({"LIMIT": text}, "LIMIT", default="10min")
    assert str(caught.value) == (
        f"LIMIT is {text!r}: write a number with its unit (ms, s, min, h, d), as in 10min, up to 24d; or 0 "
        "for no limit."
    )
