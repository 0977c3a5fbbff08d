"""Wagtail with a site of its own tests: a swapped user model, and pages that inherit from a page's table."""

from __future__ import annotations

from tests.projects.settings import *  # noqa: F403

AUTH_USER_MODEL = "customuser.CustomUser"
# What Wagtail's own migrations were made with.
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
STATIC_URL = "static/"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
WAGTAIL_SITE_NAME = "Test"
WAGTAILADMIN_BASE_URL = "http://localhost"

INSTALLED_APPS = [
    "workbench",
    "wagtail.test.customuser",
    "wagtail.test.demosite",
    "wagtail.contrib.forms",
    "wagtail.contrib.redirects",
    "wagtail.contrib.search_promotions",
    "wagtail.search",
    "wagtail.embeds",
    "wagtail.images",
    "wagtail.sites",
    "wagtail.users",
    "wagtail.snippets",
    "wagtail.documents",
    "wagtail.admin",
    "wagtail",
    "taggit",
    "rest_framework",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
]
