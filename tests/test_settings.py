"""The settings of a web server that others can reach, as its process has them."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conftest import Manage
from tests.plain import told
from tests.throwaway import PROJECT

KEY = "v7!kq2#zL9@pX4$wR8^tN1&mB6*cF3(hJ5)gD0_sA+uE=yI-oP"
PRODUCTION = {
    "WORKBENCH_WEB": "1",
    "DJANGO_SECRET_KEY": KEY,
    "DJANGO_ALLOWED_HOSTS": "data.example.org",
    "DJANGO_HTTPS": "1",
}
SHOWN = """
import json
from django.conf import settings
from django.urls import resolve
try:
    admin = resolve("/admin/").func.__name__
except Exception:
    admin = ""
print(json.dumps([settings.DEBUG, settings.SECRET_KEY, settings.ALLOWED_HOSTS, admin,
                  getattr(settings, "SECURE_PROXY_SSL_HEADER", None)]))
"""


def shown(manage: Manage, **variables: str) -> list[object]:
    done = manage("shell", "-v0", "-c", SHOWN, **variables)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("https", ["1", "proxy"])
def test_django_has_nothing_to_say_about_a_server_with_the_documented_variables(
    manage: Manage, https: str
) -> None:
    done = manage("check", "--deploy", "--fail-level=DEBUG", **{**PRODUCTION, "DJANGO_HTTPS": https})
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_django_warns_of_a_server_without_them(manage: Manage) -> None:
    done = manage("check", "--deploy")
    for about in (
        "SECURE_HSTS_SECONDS",
        "SECURE_SSL_REDIRECT",
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
    ):
        assert about in done.stderr


def test_debugging_is_off_and_each_process_has_a_key_of_its_own_unless_asked(manage: Manage) -> None:
    (debug, key, hosts, admin, header), (_, another, *_) = shown(manage), shown(manage)
    assert (debug, admin, header) == (False, "index", None)
    assert hosts == ["localhost", "127.0.0.1", "[::1]"]
    assert key != another


def test_a_web_server_has_the_admin_only_where_asked_and_believes_a_proxy_only_where_told(
    manage: Manage,
) -> None:
    assert shown(manage, **PRODUCTION) == [False, KEY, ["data.example.org"], "", None]
    *_, admin, header = shown(manage, **{**PRODUCTION, "DJANGO_HTTPS": "proxy", "DJANGO_ADMIN": "1"})
    assert (admin, header) == ("index", ["HTTP_X_FORWARDED_PROTO", "https"])


@pytest.mark.parametrize("module", ["wsgi", "asgi"])
@pytest.mark.parametrize("said", [None, " "])
def test_a_web_server_is_for_others_though_its_variable_is_blank(module: str, said: str | None) -> None:
    code = f"import workbench.{module}; from django.conf import settings as s; print(s.WORKBENCH_WEB)"
    assert told(code, {"WORKBENCH_WEB": said}) == ["True"]


def test_no_key_is_in_the_repository() -> None:
    named = subprocess.run(
        [
            "git",
            "grep",
            "-nE",
            r"(SECRET_KEY *= *[\"'][^\"']|django-insecure-)",
            "--",
            ":!tests",
            ":!workbench/shapes.py",
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert (named.returncode, named.stdout) == (1, "")


def test_a_file_of_variables_that_is_not_there_is_one_sentence(manage: Manage) -> None:
    done = manage("check", WORKBENCH_ENV_FILE=".env.nobody")
    assert done.returncode == 1
    path = PROJECT / ".env.nobody"
    assert done.stderr == f"WORKBENCH_ENV_FILE names {path}, which is not there: correct or unset it.\n"


def test_a_choice_that_is_misspelt_is_not_taken_for_no(manage: Manage) -> None:
    done = manage("check", WORKBENCH_READ_ONLY="ture")
    assert (done.returncode, done.stderr) == (
        1,
        "WORKBENCH_READ_ONLY is 'ture': write 1 for yes, or 0 for no.\n",
    )
