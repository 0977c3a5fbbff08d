"""The page within a Jupyter server, at ``workbench/`` under its address.

It lets in whom it lets in to its notebooks. So whoever has the lab open has the page too, through tunnels and
proxies alike, without another server.

Example::

    config.ServerApp.extra_services = ["workbench.page.jupyter"]
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from urllib.parse import unquote

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.ioloop import IOLoop

from workbench.page import AGAIN, ASSETS
from workbench.page.visitors import LET_IN

PLACE = "workbench"
# What a request says that the page listens to: not its cookies, nor who it is from.
HEADERS = ("If-None-Match", AGAIN)
# What the server says of an answer itself, and of how it is reached.
ITS_OWN = ("content-length", "date", "server", "strict-transport-security")
THREADS = 2

Answer = tuple[str, list[tuple[str, str]], bytes]


class _Slash(JupyterHandler):
    """Sends on whoever left out the slash at the end."""

    @web.authenticated
    def get(self) -> None:
        query = f"?{self.request.query}" if self.request.query else ""
        self.redirect(f"{url_path_join(self.base_url, PLACE)}/{query}")


class _Page(JupyterHandler):
    # Who may read notebooks may read what is in the database they work on.
    auth_resource = "contents"

    @web.authenticated
    @authorized
    async def get(self, path: str) -> None:
        await self._serve(path)

    @web.authenticated
    @authorized
    async def head(self, path: str) -> None:
        await self._serve(path)  # Tornado leaves the body out.

    async def _serve(self, path: str) -> None:
        place = url_path_join(self.base_url, PLACE)
        headers = {name: self.request.headers[name] for name in HEADERS if name in self.request.headers}
        environ = _environ(place, path, str(self.request.query), headers)
        status, fields, body = await IOLoop.current().run_in_executor(_threads(), _answer, environ)
        number, _, reason = status.partition(" ")
        self.set_status(int(number), reason)
        for name, value in fields:
            if name.lower() not in ITS_OWN:
                self.set_header(name, value)
        self.finish(body or None)

    def compute_etag(self) -> str | None:
        return None  # The page has its own.

    def _log(self) -> None:
        """Say nothing: a look each second is no news, nor is a database that is away."""


def _environ(place: str, path: str, query: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return what a WSGI application is called with."""
    return {
        "REQUEST_METHOD": "GET",
        # As bytes would look: https://peps.python.org/pep-3333/#unicode-issues.
        "SCRIPT_NAME": unquote(place, "latin-1"),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": _host(),
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        # So Django sends nobody on to HTTPS: that is Jupyter's to know.
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        LET_IN: True,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }


def _host() -> str:
    """Return a host that Django answers to. Which ones this server is reached by, Jupyter has checked."""
    from django.conf import settings

    first: str = next(iter(settings.ALLOWED_HOSTS), "localhost")
    return "localhost" if first == "*" else first.lstrip(".")


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="workbench-page")


@cache
def _application() -> Any:
    # Not when the lab starts. And not that of wsgi.py, which changes the environment for a process that is
    # nothing but a web server: kernels would inherit that.
    from django.core.handlers.wsgi import WSGIHandler

    return WSGIHandler()


def _answer(environ: dict[str, Any]) -> Answer:
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], None]:
        said[:] = status, headers
        return lambda _: None

    response = _application()(environ, start_response)
    try:
        body = b"".join(response)
    finally:
        response.close()  # Then Django ends what the request has begun.
    status, headers = said
    return status, headers, body


_FILES = "|".join(name.replace(".", r"\.") for name in ASSETS)

# As Jupyter looks for them in a service. There is nothing else here: not the admin, nor an app's own views.
default_handlers = [(rf"/{PLACE}", _Slash), (rf"/{PLACE}(/(?:{_FILES})?)", _Page)]
