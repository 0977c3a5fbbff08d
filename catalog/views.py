"""The catalog as JSON: arrays of objects, a page at a time.

A page holds the rows whose id is greater than ``?after=``, at most ``?limit=`` of them. Where more
rows follow, a ``Link: <...>; rel="next"`` header (RFC 8288) holds the address of the next page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.db.models import FilteredRelation, Q
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from catalog.models import Author

LIMIT_DEFAULT = 100
LIMIT_MAXIMUM = 1000
ID_MAXIMUM = 2**63 - 1

Row = Mapping[str, Any]
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True)
class Page:
    """The page a request asks for: the rows after id ``after``, at most ``limit`` of them."""

    after: int
    limit: int

    @classmethod
    def of(cls, request: HttpRequest) -> Page:
        """Read ``?after=`` and ``?limit=``; raise ValueError, with a sentence, if one is no number."""
        return cls(
            after=_integer(request, "after", default=0, lowest=0, highest=ID_MAXIMUM),
            limit=min(
                _integer(request, "limit", default=LIMIT_DEFAULT, lowest=1, highest=ID_MAXIMUM),
                LIMIT_MAXIMUM,
            ),
        )

    def response(self, request: HttpRequest, rows: Iterable[Row]) -> JsonResponse:
        """Answer with the page's rows, given up to ``limit + 1``: the one too many means "more follow"."""
        found = list(rows)
        page = found[: self.limit]
        response = JsonResponse(page, safe=False)
        if len(found) > self.limit:
            query = request.GET.copy()
            query["after"] = str(page[-1]["id"])
            address = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
            response["Link"] = f'<{address}>; rel="next"'
        return response


def _integer(request: HttpRequest, name: str, *, default: int, lowest: int, highest: int) -> int:
    text = request.GET.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and lowest <= int(text) <= highest):
        raise ValueError(f"{name} must be a whole number from {lowest} to {highest}")
    return int(text)


def _error(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)


def _paged(view: View) -> View:
    # Nothing is written here, so a wrong method is a 405 before it can be a missing token.
    @csrf_exempt
    @wraps(view)
    def answer(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        if request.method not in ("GET", "HEAD"):
            response = _error(405, f"{request.method} is not allowed here, only GET and HEAD are")
            response["Allow"] = "GET, HEAD"
            return response
        try:
            page = Page.of(request)
        except ValueError as error:
            return _error(400, str(error))
        return view(request, page, **kwargs)

    return answer


@_paged
def list_authors(request: HttpRequest, page: Page) -> HttpResponseBase:
    """The authors, by id: ``id, name, bio, country, created_at``."""
    authors = Author.objects.filter(pk__gt=page.after).order_by("pk")
    rows = authors.values("id", "name", "bio", "country", "created_at")
    return page.response(request, rows[: page.limit + 1])


@_paged
def list_books_by_author(request: HttpRequest, page: Page, author_id: int) -> HttpResponseBase:
    """An author's books, by id: ``id, title, author_id, created_at``; 404 if there is no such author."""
    if author_id > ID_MAXIMUM:
        return _error(404, f"There is no author {author_id}")
    # An outer join from the author: no row means no author, a row without a book means no books,
    # and one query tells both.
    author = Author.objects.filter(pk=author_id)
    joined = author.annotate(on_page=FilteredRelation("book", condition=Q(book__pk__gt=page.after)))
    rows = joined.order_by("on_page__pk").values_list(
        "on_page__pk", "on_page__title", "pk", "on_page__created_at"
    )[: page.limit + 1]
    names = ("id", "title", "author_id", "created_at")
    books = [dict(zip(names, row, strict=True)) for row in rows]
    if not books:
        return _error(404, f"There is no author {author_id}")
    return page.response(request, [book for book in books if book["id"] is not None])
