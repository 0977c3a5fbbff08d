"""Django's settings for the workbench. Every variable they read is explained in ``.env.example``."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key
from dotenv import dotenv_values

from workbench.connection import database

BASE_DIR = Path(__file__).resolve().parent.parent

# The environment wins over the file. utf-8-sig, because Windows' Notepad starts files with a mark that
# would otherwise become part of the first name.
# Not in capitals, which would make them settings: Django shows those to whoever asks.
_env_file = os.environ.get("WORKBENCH_ENV_FILE") or BASE_DIR / ".env"
_env = {
    **{
        name: value
        for name, value in dotenv_values(_env_file, encoding="utf-8-sig", interpolate=False).items()
        if value is not None
    },
    **os.environ,
}


def _is_on(name: str, default: str = "") -> bool:
    return (_env.get(name, "").strip() or default).lower() in ("1", "true", "yes", "on")


def _listed(name: str) -> list[str]:
    return [item.strip() for item in _env.get(name, "").split(",") if item.strip()]


DEBUG = _is_on("DJANGO_DEBUG")
# Without a key of its own each process has another one: sessions end with it, and nothing secret is stored.
SECRET_KEY = _env.get("DJANGO_SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = _listed("DJANGO_ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"]

# Where the embedded Postgres keeps its data.
WORKBENCH_HOME = BASE_DIR / Path(_env.get("WORKBENCH_HOME") or ".workbench").expanduser()
# Yes to what a migration would drop, said beforehand.
WORKBENCH_YES = _is_on("WORKBENCH_YES")
# Whether what takes longer than a second shows how far it is.
WORKBENCH_PROGRESS = _is_on("WORKBENCH_PROGRESS", default="1")
# Whether lessons that take a million rows take some thousands.
WORKBENCH_SMALL = _is_on("WORKBENCH_SMALL")

# With both, branches of a Neon database are Neon's own.
NEON_API_KEY = _env.get("NEON_API_KEY", "").strip()
NEON_PROJECT_ID = _env.get("NEON_PROJECT_ID", "").strip()
NEON_API_URL = _env.get("NEON_API_URL", "").strip()

DATABASES = {"default": database(_env, home=WORKBENCH_HOME, web=_is_on("WORKBENCH_WEB"))}
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
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
