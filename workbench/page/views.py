"""The page, and the two files and the picture that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from workbench.branches import Branch, BranchError, Branches
from workbench.branches.kind import MAIN
from workbench.connection import ConnectionFailed
from workbench.page import AGAIN, ASSETS
from workbench.page.local import local_apps
from workbench.page.look import NotThere, State, Unavailable, databases, look
from workbench.page.visitors import NotLetIn, check
from workbench.web.policy import HEADER, POLICY

# Not among Django's static files: their address is fixed when it is first asked for, and in the lab the page
# is at another one. Its own files are beside it, wherever it is.
FOLDER = Path(__file__).parent / "assets"

# Of the migrations so many that are applied, and that are not, are not folded away.
APPLIED_SHOWN, PENDING_SHOWN = 4, 8
# Schemas of more tables are folded away.
OPEN_TABLES = 6


@dataclass(frozen=True)
class Option:
    text: str
    href: str
    is_current: bool
    note: str = ""


@dataclass(frozen=True)
class Choice:
    """Something to choose, ``what`` it is called, and among what."""

    what: str
    current: str
    options: tuple[Option, ...]


View = Callable[..., HttpResponseBase]


def _read_only(view: View) -> View:
    # Nothing is written here, so a wrong method is a 405 before it can be a missing token.
    answer: View = csrf_exempt(require_safe(view))
    return answer


@_read_only
def show(request: HttpRequest) -> HttpResponseBase:
    """Show a branch: ``?branch=try-out&app=catalog&database=default``, of which each has a default.

    404 where what was asked for is not there, 503 where the database cannot be read now, 304 where nothing is
    otherwise than the request's ETag says. Whom it is not for it sends to a login, or answers 403.
    """
    asked = {name: request.GET.get(name, "") for name in ("database", "branch", "app")}
    try:
        check(request)
        state = look(**asked, is_again=AGAIN in request.headers)
    except NotLetIn as error:
        return error.answer or _trouble(asked, error, HTTPStatus.FORBIDDEN)
    except NotThere as error:
        return _trouble(asked, error, HTTPStatus.NOT_FOUND, error.branches)
    except (BranchError, ConnectionFailed, Unavailable) as error:
        return _trouble(asked, error, HTTPStatus.SERVICE_UNAVAILABLE)
    text = render_to_string("workbench/page/state.html", _context(asked, state))
    response = _answer(text, HTTPStatus.OK)
    etag = f'"{sha256(text.encode()).hexdigest()[:32]}"'
    response["ETag"] = etag
    return get_conditional_response(request, etag, response=response) or response


@_read_only
def asset(request: HttpRequest, name: str) -> HttpResponseBase:
    """Give a file. Its address has a mark of its content, so a browser need never ask for it again."""
    content, mark = _asset(name)
    response = HttpResponse(content, content_type=ASSETS[name])
    is_marked = request.GET.get("v") == mark
    response["Cache-Control"] = "public, max-age=31536000, immutable" if is_marked else "no-cache"
    response["X-Content-Type-Options"] = "nosniff"
    etag = response["ETag"] = f'"{mark}"'
    return get_conditional_response(request, etag, response=response) or response


@cache
def _asset(name: str) -> tuple[bytes, str]:
    content = (FOLDER / name).read_bytes()
    return content, sha256(content).hexdigest()[:12]


def _trouble(
    asked: dict[str, str], error: Exception, status: HTTPStatus, branches: Branches | None = None
) -> HttpResponse:
    """Say in one sentence why there is nothing to show, with the way back."""
    context = {
        **_common(asked),
        "title": "Workbench",
        "sentence": str(error),
        "is_gone": status == HTTPStatus.NOT_FOUND,
        "choices": [_branches(asked, branches, None)] if branches else [],
        "back": _href({**asked, "branch": MAIN}) if branches else _href({}),
        "back_text": f"Branch {MAIN}" if branches else "The default page",
    }
    response = _answer(render_to_string("workbench/page/trouble.html", context), status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = "2"
    return response


def _answer(text: str, status: HTTPStatus) -> HttpResponse:
    response = HttpResponse(text, status=status)
    response["Cache-Control"] = "no-store"
    response[HEADER] = POLICY
    return response


def _context(asked: dict[str, str], state: State) -> dict[str, Any]:
    name = MAIN if state.branch.is_main else state.branch.name
    choices = [_branches(asked, state.branches, state.branch)]
    if len(labels := local_apps()) > 1:
        choices.append(_choice(asked, "app", state.app, labels))
    if len(aliases := databases()) > 1:
        choices.append(_choice(asked, "database", state.database, aliases))
    applied = [step for step in state.steps if step.applied]
    return {
        **_common(asked),
        "title": " · ".join(filter(None, [name, state.app, "Workbench"])),
        "state": state,
        # A socket's folder is no news to anybody.
        "server": "a local server" if state.place.server.startswith("/") else state.place.server,
        "choices": choices,
        "earlier": applied[:-APPLIED_SHOWN],
        "steps": [*applied[-APPLIED_SHOWN:], *state.pending[:PENDING_SHOWN]],
        "later": state.pending[PENDING_SHOWN:],
        "is_open": len(state.tables) <= OPEN_TABLES,
    }


def _common(asked: dict[str, str]) -> dict[str, Any]:
    assets = {name.rpartition(".")[2]: _marked(name) for name in ASSETS}
    return {"assets": assets, "here": _href(asked)}


def _marked(name: str) -> str:
    return f"{name}?v={_asset(name)[1]}"


def _branches(asked: dict[str, str], there: Branches, current: Branch | None) -> Choice:
    options = []
    for each in there:
        name = MAIN if each.is_main else each.name
        options.append(
            Option(
                each.name,
                _href({**asked, "branch": name}),
                each == current,
                f"of {each.parent}" if each.parent else "",
            )
        )
    return Choice("branch", current.name if current else "", tuple(options))


def _choice(asked: dict[str, str], what: str, current: str, names: Sequence[str]) -> Choice:
    options = (Option(name, _href({**asked, what: name}), name == current) for name in names)
    return Choice(what, current, tuple(options))


def _href(asked: dict[str, str]) -> str:
    """Return an address of the page, relative to it: what a proxy before it has put there stays."""
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"?{query}" if query else "./"
