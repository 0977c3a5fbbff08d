"""Django's settings for the workbench. Every variable they read is explained in ``.env.example``."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from dotenv import dotenv_values

from workbench.connection import database, duration, limits
from workbench.redaction import Secret, remember_all

BASE_DIR = Path(__file__).resolve().parent.parent

# The environment wins over the file. utf-8-sig, because Windows' Notepad starts files with a mark that
# would otherwise become part of the first name.
# Not in capitals, which would make them settings: Django shows those to whoever asks.
_named = os.environ.get("WORKBENCH_ENV_FILE", "")
# Of the project, wherever a process is: kernels are in the folder of their notebook.
_env_file = BASE_DIR / Path(_named or ".env").expanduser()
if _named not in ("", os.devnull) and not _env_file.exists():
    # Else it would be another database than was meant, as another role.
    raise ImproperlyConfigured(
        f"WORKBENCH_ENV_FILE names {_env_file}, which is not there: correct or unset it."
    )
_in_file = {
    name: value
    for name, value in dotenv_values(_env_file, encoding="utf-8-sig", interpolate=False).items()
    if value is not None
}
_env = {**_in_file, **os.environ}
# No output shows them, nor those of the file that the environment overrides: see workbench/redaction.py.
remember_all(_in_file)
remember_all(os.environ)


def _is_on(name: str, default: str = "") -> bool:
    said = (_env.get(name, "").strip() or default).lower()
    if said not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ImproperlyConfigured(f"{name} is {said!r}: write 1 for yes, or 0 for no.")
    return said in ("1", "true", "yes", "on")


def _listed(name: str) -> list[str]:
    return [item.strip() for item in _env.get(name, "").split(",") if item.strip()]


# Whether this process is a web server, and nothing else.
WORKBENCH_WEB = _is_on("WORKBENCH_WEB")

DEBUG = _is_on("DJANGO_DEBUG")
# Without a key of its own each process has another one: sessions end with it, and nothing secret is stored.
SECRET_KEY = Secret(_env.get("DJANGO_SECRET_KEY", "").strip() or get_random_secret_key())
ALLOWED_HOSTS = _listed("DJANGO_ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"]
# A login that everybody can try passwords at is for those who want one.
SERVES_ADMIN = not WORKBENCH_WEB or _is_on("DJANGO_ADMIN")

_https = _env.get("DJANGO_HTTPS", "").strip().lower()
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https == "proxy" or _is_on("DJANGO_HTTPS")
# A browser that saw it once takes this host by HTTPS only, for a year.
SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60 if SECURE_SSL_REDIRECT else 0
if _https == "proxy":
    # Whoever can reach the server past the proxy could say this too.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# That all other hosts of the domain keep to HTTPS, and browsers are shipped with that, is for the domain's
# owner to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# Where the embedded Postgres keeps its data.
WORKBENCH_HOME = BASE_DIR / Path(_env.get("WORKBENCH_HOME") or ".workbench").expanduser()
# Yes to what a migration would drop, said beforehand.
WORKBENCH_YES = _is_on("WORKBENCH_YES")
# Whether what takes longer than a second shows how far it is.
WORKBENCH_PROGRESS = _is_on("WORKBENCH_PROGRESS", default="1")
# How long a kernel's transaction may be idle before Postgres ends it.
WORKBENCH_TRANSACTION_TIMEOUT = duration(_env, "WORKBENCH_TRANSACTION_TIMEOUT", default="10min")
# Whether lessons that take a million rows take some thousands.
WORKBENCH_SMALL = _is_on("WORKBENCH_SMALL")

# With both, branches of a Neon database are Neon's own.
NEON_API_KEY = Secret(_env.get("NEON_API_KEY", "").strip())
NEON_PROJECT_ID = _env.get("NEON_PROJECT_ID", "").strip()
NEON_API_URL = _env.get("NEON_API_URL", "").strip()

# Whether sessions only read, which the server sees to. A pooler's are not ours to set.
WORKBENCH_READ_ONLY = _is_on("WORKBENCH_READ_ONLY")

DATABASES = {
    "default": limits(
        database(_env, home=WORKBENCH_HOME, web=WORKBENCH_WEB and not WORKBENCH_READ_ONLY),
        _env,
        read_only=WORKBENCH_READ_ONLY,
    )
}
# The branch that every process starts on: the first connection looks for it.
DATABASES["default"]["BRANCH"] = _env.get("WORKBENCH_BRANCH", "").strip()

INSTALLED_APPS = [
    # Before django_extensions and Django's own, whose shell_plus and migrate it extends.
    "workbench",
    "catalog",
    "django_extensions",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    # First those that put headers on an answer, whoever gives it.
    "workbench.web.policy.content_security_policy",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "workbench.web.malformed.malformed",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "workbench.web.unavailable.DatabaseUnavailable",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DEFAULT_EXCEPTION_REPORTER = "workbench.web.reporter.Reporter"

ROOT_URLCONF = "workbench.urls"
WSGI_APPLICATION = "workbench.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
# The admin's files are served from where pip put them, with DEBUG on or off: there is nothing to collect.
WHITENOISE_USE_FINDERS = True

# What the kernel imports beside every model and django-extensions' own list.
SHELL_PLUS_IMPORTS = [
    "import pandas as pd",
    "from django.db import connection, migrations, models",
    "from workbench.branches import branch",
    "from workbench.connection import where, who_blocks",
    "from workbench.frames import frame, load",
    "from workbench.queries import queries",
    "from workbench.schema import diagram, models_at, rehearse, snapshot, states, timeline",
]
