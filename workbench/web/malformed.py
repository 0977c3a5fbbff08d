"""Requests that Django itself would fail at, though the mistake is the client's."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseBase

from workbench.web.policy import Answer


def malformed(get_response: Answer) -> Answer:
    """Django's middleware: answers 400 to them.

    A NUL in a cookie, which Postgres cannot take for a session's key. And another charset than UTF-8: Django
    decodes the query with whatever codec is named, and raises for a form within its own page for that error.
    """

    def answer(request: HttpRequest) -> HttpResponseBase:
        if any("\0" in value for value in request.COOKIES.values()):
            return _bad("A cookie has a NUL character.")
        if request.encoding and request.encoding.lower() != "utf-8":
            return _bad("Text is taken in UTF-8 only.")
        return get_response(request)

    return answer


def _bad(sentence: str) -> HttpResponse:
    return HttpResponseBadRequest(sentence, content_type="text/plain; charset=utf-8")
