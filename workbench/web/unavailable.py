"""What a web server answers while its database cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from workbench.connection import ConnectionFailed, ConnectionLost

logger = logging.getLogger(__name__)

SENTENCE = "The database cannot be reached at the moment: try again in a few seconds."
RETRY_SECONDS = 5


class DatabaseUnavailable:
    """Answers 503 where a view could not connect, or lost its session: in JSON, or in HTML for a browser.

    Why is said in the log, as it names the server. Nothing is tried again here: the next request connects.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        if not isinstance(error, ConnectionFailed | ConnectionLost):
            return None
        logger.error("%s %s: %s", request.method, request.path, error)
        response: HttpResponse
        if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
            response = HttpResponse(f"<!doctype html><title>Unavailable</title><p>{SENTENCE}</p>", status=503)
        else:
            response = JsonResponse({"error": SENTENCE}, status=503)
        response["Retry-After"] = str(RETRY_SECONDS)
        response["Cache-Control"] = "no-store"
        return response
