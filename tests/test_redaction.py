from __future__ import annotations

import json
import logging
import os
import pprint
import re
import shlex
from collections.abc import Callable, Iterator
from html import escape
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn

from tests.throwaway import EVERYTHING
from workbench import redaction
from workbench.redaction import MASK, Secret, is_telling, masked, redacted, redacted_all

EXAMPLES = 3000 if os.environ.get(EVERYTHING) else 60

WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "ascii": ascii,
    "a repr in a repr": lambda text: repr(repr(text)),
    "JSON": json.dumps,
    "JSON beyond ASCII": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON of a dict": lambda text: json.dumps(json.dumps({"password": text})),
    "HTML": escape,
    "HTML of a repr": lambda text: escape(repr(text)),
    "an address": lambda text: quote(text, safe=""),
    "an address, loosely": quote,
    "a form": quote_plus,
    "a shell": shlex.quote,
    "libpq": lambda text: make_dsn(password=text),
    "a shell's variables": lambda text: "'" + text.replace("'", r"'\''") + "'",
    "bytes": lambda text: repr(text.encode()),
    "a pattern of LIKE": lambda text: re.sub(r"([%_\\])", r"\\\1", text),
    "SQL": lambda text: "'" + text.replace("'", "''") + "'",
    "coloured": lambda text: "\x1b[31m\x1b[0m".join(text.partition("%")),
}


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(redaction, "_known", ())
        yield


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=8, max_size=40))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_telling_secret_is_found_however_it_is_written(secret: str) -> None:
    secret = secret.strip()
    assume(is_telling(secret) and any(character.isalnum() for character in secret))
    redaction._known = ()
    redaction.remember(secret)
    for name, written in WAYS.items():
        text = f"<{written(secret)}>"
        assert MASK in redacted(text), name
        assert written(secret).strip("'\"") not in redacted(text), name


@given(st.text(max_size=60), st.sampled_from(["a", "postgres", "workbench", "shop", "s3cr3t", "12345", "."]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_word_that_is_a_password_too_stays_a_word(text: str, password: str) -> None:
    redaction._known = ()
    redaction.remember_address(f"postgresql://role:{password}@host/shop")
    for said in (text, f"{text} {password} {text}"):
        assume("://" not in said and not redaction.is_secret(said))
        assert redacted(said) == said


@pytest.mark.parametrize("password", ["a", "postgres", "workbench", "s3cr3t", "12345", "p.w", "a'b"])
@pytest.mark.parametrize(
    "text",
    [
        "postgresql://postgres:{}@localhost/postgres",
        "PGPASSWORD={} psql",
        "PASSWORD={}",
        "{{'USER': 'postgres', 'PASSWORD': '{}'}}",
        '{{"password": "{}"}}',
        "<th>PASSWORD</th>\n      <td>{}</td>",
        "host=localhost password={} user=postgres",
        "\x1b[34mpassword\x1b[39m = \x1b[32m'{}'\x1b[39m",
    ],
)
def test_where_a_password_is_meant_a_word_is_taken_out_as_well(text: str, password: str) -> None:
    redaction.remember_address(f"postgresql://postgres:{quote(password)}@localhost/postgres")
    assert redacted(text.format(password)) == text.format(MASK)


def test_what_is_called_like_the_role_the_database_or_the_host_tells_nothing() -> None:
    redaction.remember_address("postgresql://alex-2024:shop-2024@db-2024.example.org/shop-2024")
    assert redacted("shop-2024 on db-2024") == "shop-2024 on db-2024"
    redaction.remember_address("postgresql://alex-2024:shop-2025@db-2024.example.org/shop-2024")
    assert redacted("shop-2024, shop-2025") == f"shop-2024, {MASK}"


def test_of_two_secrets_the_one_that_holds_the_other_goes_first() -> None:
    redaction.remember("s3cr3t-1234")
    redaction.remember("s3cr3t-1234-and-more")
    assert redacted("s3cr3t-1234-and-more") == MASK


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://alex:{}@host/shop",
        "postgres+psycopg://alex:{}@host/shop",
        "psql 'postgresql://alex:{}@host/shop'",
        "postgresql://alex:{}@host:port:port/shop?sslmode=odd",
        "https://alex:{}@host",
    ],
)
@pytest.mark.parametrize(
    "password", ["s3cr3t/with-slash", "s3cr3t@with-at", "s3cr3t#with-hash", "s3cr3t%2Fwith"]
)
def test_a_password_is_known_from_an_address_that_nobody_can_read(address: str, password: str) -> None:
    redaction.remember_all({"SOME_VARIABLE": address.format(password)})
    assert password not in redacted(f"it is {password}.")


@pytest.mark.parametrize("cut", ["...", "…"])
def test_what_is_left_of_one_that_was_cut_is_taken_out(cut: str) -> None:
    redaction.remember_address("postgresql://alex:s3cr3t%401234567@host/shop")
    assert redacted(f"postgresql://alex:s3cr3t%401{cut}") == f"postgresql://alex:{MASK}{cut}"
    assert redacted(f"'s3cr3t@{cut}234567@host'") == f"'{MASK}{cut}{MASK}@host'"
    assert redacted(f"s3cr3t@12<i>{cut}</i>") == f"{MASK}<i>{cut}</i>"
    assert redacted(f"s3c{cut}, s3{cut}34, and so on{cut}") == f"s3c{cut}, s3{cut}34, and so on{cut}"


@pytest.mark.parametrize("written", [str, repr, ascii, json.dumps, escape])
def test_a_half_is_found_however_it_is_written(written: Callable[[str], str]) -> None:
    secret = "(s3cr3tq&'é<abcdefghij&klmnop>Q9zQ9z"
    redaction.remember(secret)
    for length in range(8, len(secret)):
        first, last = (written(part).strip("\"'") for part in (secret[:length], secret[-length:]))
        assert redacted(f"key={first}...") == f"key={MASK}..."
        assert redacted(f"<i>{first}<i>…</i></i>") == f"<i>{MASK}<i>…</i></i>"
        assert redacted(f"…{last}, and more") == f"…{MASK}, and more"


@pytest.mark.parametrize("written", [str, repr, json.dumps, escape, quote])
def test_a_start_waits_for_the_rest_wherever_a_stream_is_cut(written: Callable[[str], str]) -> None:
    secret = "s3cr3t_\"é<>&'Q9z"
    redaction.remember(secret)
    text = written(secret).strip("\"'")
    for end in range(4, len(text)):
        assert redaction.begun(f"it is {text[:end]}") == end
        assert redaction.gone_on(f"it is {text[:end]}", f"{text[end:]}, and more") == len(text) - end
    assert redaction.begun("it is s3c") == redaction.gone_on(f"it is {text}", "more") == 0


SHORT, ODD, NEON = "h2", "h2@", "npg_" + "OldZyX9wVu1A"
KEY = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIB\n" * 2


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (
            f"# DATABASE_URL=postgresql://alex:{NEON}@ep-1.neon.tech/db",
            f"# DATABASE_URL=postgresql://alex:{MASK}@ep-1.neon.tech/db",
        ),
        (
            f"postgresql://alex:{SHORT}@db.acme.org,postgresql://bo:{ODD}@db.acme.org/x?to=y" + "@z.org",
            f"postgresql://alex:{MASK}@db.acme.org,postgresql://bo:{MASK}@z.org",
        ),
        (f"a {NEON}b b", f"a {MASK} b"),
        (f"a {NEON[:9]}... b", f"a {MASK}... b"),
        (f"{KEY}-----END PRIVATE KEY-----\nmore", f"{MASK}-----END PRIVATE KEY-----\nmore"),
        (f"key: {KEY}", f"key: {MASK}"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_though_nobody_knows_it(text: str, clean: str) -> None:
    assert redacted(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://USER:PASSWORD@ep-cool-1.neon.tech/db",
        "postgresql://user:password@host/db",
        "postgresql://alex:pw@localhost:5432/db and postgresql://alex:pw@db.example.org/db",
        "postgresql://alex:{password}@db.acme.org/db",
        "https://cdn.acme.org:443/npm/jquery@3.6.0/dist.js",
        "npg_xxxxxxxxxxxxxxx, napi_, npg_...",
    ],
)
def test_an_example_stays_readable(text: str) -> None:
    assert redacted(text) == text


def test_settings_are_known_within_those_that_hold_others() -> None:
    class Settings:
        DATABASES = {
            "default": {
                "USER": "shop-2024",
                "PASSWORD": "shop-2024",
                "OPTIONS": {"sslpassword": "KeyPassw0rd99"},
            }
        }
        CACHES = {"default": {"LOCATION": "redis://:c4che-1234@host"}}
        STORAGES = {"default": {"OPTIONS": {"secret_key": "st0rage-1234"}}}
        PASSWORD_HASHERS = ["hashers.Hasher-1"]

    redaction.remember_settings(Settings)
    assert redacted("KeyPassw0rd99 c4che-1234 st0rage-1234") == f"{MASK} {MASK} {MASK}"
    assert redacted("shop-2024 hashers.Hasher-1") == "shop-2024 hashers.Hasher-1"


def test_variables_are_known_by_their_names() -> None:
    redaction.remember_all(
        {
            "AWS_SECRET_ACCESS_KEY": "abcd-1234-efgh",
            "TOKENIZERS_PARALLELISM": "false",
            "SECRET_FILE": "/run/secrets/1",
            "PATH": "/usr/bin:/bin-1",
            "NUMBER_TOKEN": 7,
            "SMTP_PASS": "ijkl-5678-mnop",
            "DB_PWD": "short",
            "PWD": "/home/alex-1",
            "OLDPWD": "/home/alex-2",
        }
    )
    assert redacted("abcd-1234-efgh token=false /run/secrets/1 /usr/bin:/bin-1 7") == (
        f"{MASK} token=false /run/secrets/1 /usr/bin:/bin-1 7"
    )
    assert redacted("ijkl-5678-mnop DB_PWD=short, in short: /home/alex-1 /home/alex-2") == (
        f"{MASK} DB_PWD={MASK}, in short: /home/alex-1 /home/alex-2"
    )


def test_what_is_called_like_a_secret() -> None:
    for name in ("smtp_pass", "smtpPass", "PASS", "userPwd", "accessKey", "encryption_key", "SIGNING_KEY"):
        assert redaction.is_secret(name), name
    for name in ("compass", "bypass", "ByPASSED", "pass_rate", "passenger", "key", "foreign_key", "access"):
        assert not redaction.is_secret(name), name
    assert redaction.is_secret("key", table="authtoken_token")
    assert not redaction.is_secret("owner", table="authtoken_token")
    assert not redaction.is_secret("key", table="catalog_keyword")


def test_all_texts_are_redacted_and_what_holds_none_is_not_copied() -> None:
    redaction.remember("s3cr3t-1234")
    content = {"a": ["s3cr3t-1234", 1, None, {"s3cr3t-1234": ("x", "s3cr3t-1234")}], "b": True}
    assert redacted_all(content) == {"a": [MASK, 1, None, {MASK: ["x", MASK]}], "b": True}
    clean = {"a": ["x", {"b": ("c", 1.5)}]}
    assert redacted_all(clean) is clean


def test_a_secret_shows_itself_only_where_it_is_used() -> None:
    secret = Secret("s3cr3t")
    assert repr({"PASSWORD": secret, "OTHER": Secret("")}) == "{'PASSWORD': '********', 'OTHER': ''}"
    assert "s3cr3t" not in pprint.pformat([secret] * 20)
    assert make_dsn(password=secret) == "password=s3cr3t"
    assert (secret, hash(secret), secret + "") == ("s3cr3t", hash("s3cr3t"), "s3cr3t")


def test_logs_hold_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    redaction.remember("s3cr3t-1234")
    before = logging.getLogRecordFactory()
    redaction.redact_logs()
    try:
        logging.warning("to %s with %d", "s3cr3t-1234", 5)
        with pytest.raises(TypeError):  # As pytest shows what others print.
            logging.warning("%d", "a mistake")
        try:
            raise ValueError("s3cr3t-1234")
        except ValueError:
            logging.exception("failed")
    finally:
        logging.setLogRecordFactory(before)
    assert f"to {MASK} with 5" in caplog.text
    assert f"ValueError: {MASK}" in caplog.text
    assert "s3cr3t-1234" not in caplog.text


@pytest.mark.parametrize(
    "query",
    [
        "ALTER ROLE alice PASSWORD '§§§§§§'",
        "alter role alice with encrypted\npassword E'\\'§§§§§§' VALID UNTIL 'infinity'",
        "CREATE ROLE alice PASSWORD $tag$'§§§§§§$tag$",
        "ALTER ROLE alice PASSWORD /* don't */ '§§§§§§''§§§§§§'",
        "ALTER ROLE alice PASSWORD U&'§§§§§§'",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=§§§§§§ user=u' PUBLICATION p",
        "CREATE USER MAPPING FOR alice SERVER s OPTIONS (user 'bob', password '§§§§§§')",
        "SELECT * FROM dblink('postgresql://alice:§§§§§§@h/d', 'SELECT 1')",
        """UPDATE "auth_user" SET "password" = '§§§§§§' WHERE "id" = 1""",
        """INSERT INTO "auth_user" ("id", "password") VALUES (1, '§§§§§§')""",
    ],
)
def test_no_password_is_shown_wherever_postgres_cut_the_query(query: str) -> None:
    for end in range(len(query) + 1):
        assert "§" not in masked(query[:end])


def test_what_names_a_password_without_saying_one_is_left_as_it_is() -> None:
    query = 'SELECT "auth_user"."password" FROM "auth_user" WHERE "auth_user"."id" < 5'
    assert masked(query) == query
