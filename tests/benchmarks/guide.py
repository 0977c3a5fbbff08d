"""Plain Django with the views of Neon's guide (https://neon.com/docs/guides/django), as a WSGI application.

The guide's models are the catalog's. ``/page/`` is its first view for as many rows as a page of ours has.
"""

from __future__ import annotations

import os

import dj_database_url
from django.conf import settings
from django.core import serializers
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

# What startproject puts there, with the guide's database.
CONTRIB = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": dj_database_url.parse(os.environ["DATABASE_URL"], conn_max_age=600)},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[*(f"django.contrib.{name}" for name in CONTRIB), "catalog"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a benchmark",
    USE_TZ=True,
)
application = get_wsgi_application()

from catalog.models import Author, Book  # noqa: E402
from catalog.views import LIMIT_DEFAULT  # noqa: E402


def list_authors(request: HttpRequest) -> JsonResponse:
    authors = Author.objects.all()
    data = [serializers.serialize("json", authors)]
    return JsonResponse(data, safe=False)


def list_page(request: HttpRequest) -> JsonResponse:
    authors = Author.objects.filter(pk__gt=request.GET["after"]).order_by("pk")[:LIMIT_DEFAULT]
    data = [serializers.serialize("json", authors)]
    return JsonResponse(data, safe=False)


def list_books_by_author(request: HttpRequest, author_id: int) -> JsonResponse:
    books = Book.objects.filter(author_id=author_id)
    data = [serializers.serialize("json", books)]
    return JsonResponse(data, safe=False)


urlpatterns = [
    path("catalog/authors/", list_authors),
    path("catalog/page/", list_page),
    path("catalog/books/<int:author_id>/", list_books_by_author),
]
