"""The calls of Neon's API that branches need, tried again where that is safe.

By https://api-docs.neon.tech every call may be tried again after 423 or 503, a GET after any failure. What
writes may have been carried out though there was no answer. 429 is the rate limit's.
"""

from __future__ import annotations

import re
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx

from workbench.branches.errors import BranchError
from workbench.progress import Progress
from workbench.redaction import redacted, remember, without_addresses
from workbench.retries import pauses

CONSOLE = "https://console.neon.tech"

FINISHED = ("finished", "skipped")
FAILED = ("failed", "error", "cancelled")

PASSING = (423, 429, 503)
# Of a writing call: it may be an earlier try of ours that got there.
DONE_ALREADY = (404, 409)

# {said} is Neon's own message.
SENTENCES = {
    0: "Neon's API gave no usable answer ({said}): check the network, or NEON_API_URL if set, and try again.",
    401: "Neon does not accept NEON_API_KEY ({said}): copy it again, or make a new key at {console}.",
    403: "NEON_API_KEY may not do that ({said}): make a key at {console} that may, or check NEON_PROJECT_ID.",
    404: "Neon knows no such thing ({said}): check NEON_PROJECT_ID, which stands in the project's settings.",
    423: "Neon still works on something else in this project ({said}): wait a moment, and try again.",
    429: "Neon takes no more calls for now ({said}): wait a minute, and try again.",
}
ELSEWHERE = "NEON_API_URL leads elsewhere ({status}: {said}): correct it, or take it out."
REFUSED = "Neon refuses that ({status}: {said}): the project's page at {console} may tell why."
BROKEN = "Neon's API is out of order ({status}: {said}): try again later; https://neonstatus.com tells more."

Answer = dict[str, Any]


class NeonError(BranchError):
    """What Neon's API refused, or could not be asked.

    ``status`` is HTTP's, 0 without an answer that can be read; ``said`` is what Neon gave as the reason, and
    ``wait`` the seconds to let pass that it asked for.
    """

    def __init__(self, status: int, said: str, wait: float = 0.0) -> None:
        otherwise = ELSEWHERE if status < 400 else REFUSED if status < 500 else BROKEN
        sentence = SENTENCES.get(status, otherwise)
        super().__init__(sentence.format(status=status, said=said, console=CONSOLE))
        self.status = status
        self.said = said
        self.wait = wait

    @property
    def is_unclear(self) -> bool:
        """Whether the call may have been carried out all the same."""
        return self.status == 0 or (self.status >= 500 and self.status not in PASSING)


class Api:
    """One project's API. Every method raises BranchError, and no key or password is in what it says."""

    # Seconds: how long one answer may take, and a call with all that it is tried again.
    timeout = 30.0
    budget = 60.0
    tries = 12
    # Seconds before a new try: at random up to the first, then up to twice as many each time.
    first_delay = 0.25
    longest_delay = 10.0
    # Seconds: how often it is asked for an operation, after the first times, and how long.
    pace = 1.0
    patience = 300.0
    # Seconds for each of both, where it is no great matter.
    haste = 5.0

    def __init__(self, url: str, *, key: str, project: str) -> None:
        # What cannot stand in a header would be quoted by the error about it.
        if not re.fullmatch(r"[!-~]+", key):
            raise BranchError(f"NEON_API_KEY holds no key: copy it again from {CONSOLE}, without spaces.")
        if not re.fullmatch(r"[a-z0-9-]{1,60}", project):
            raise BranchError(
                f"NEON_PROJECT_ID is not a project's id, such as cool-forest-123456: copy it from {CONSOLE}."
            )
        if not _is_safe(url):
            raise BranchError(
                "NEON_API_URL must start with https://, as the key goes there: correct it, or take it out."
            )
        remember(key)
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/projects/{project}/",
            headers={"Authorization": f"Bearer {key}", "User-Agent": "workbench"},
            verify=_certificates(),
        )
        weakref.finalize(self, self._http.close)

    def get(self, path: str, *holding: str, **params: Any) -> Answer:
        """Return an answer in which these are: a name that leads to a text, or to objects with an id."""
        return self._persist(lambda: self._ask("GET", path, holding, params=params), lambda error: None)

    def pages(self, path: str, *holding: str, **params: Any) -> Iterator[Answer]:
        cursor: str | None = None
        seen = {cursor}
        while True:
            answer = self.get(path, *holding, **params, **({"cursor": cursor} if cursor else {}))
            yield answer
            cursor = (answer.get("pagination") or {}).get("next")
            if cursor in seen:
                return
            seen.add(cursor)

    def send(
        self,
        method: str,
        path: str,
        *holding: str,
        body: Answer | None = None,
        happened: Callable[[], Answer | None],
    ) -> Answer:
        """Write, and return the answer.

        Where it is not clear whether it was carried out, ``happened`` looks, and returns what takes the place
        of the answer, or None.
        """

        def look(error: NeonError) -> Answer | None:
            return happened() if error.is_unclear or error.status in DONE_ALREADY else None

        return self._persist(lambda: self._ask(method, path, holding, json=body), look)

    def finish(self, operations: Iterable[Answer]) -> None:
        """Return once these are finished, and raise BranchError if one of them fails or takes too long."""
        deadline = time.monotonic() + self.patience
        # Most of them take less than a second.
        delay = self.pace / 8
        with Progress("Waiting for Neon") as progress:
            for operation in operations:
                state = operation
                while (status := state.get("status")) not in FINISHED:
                    action = f"{state.get('action', 'an operation')}".replace("_", " ")
                    progress.now = action
                    if status in FAILED:
                        said = self._line(state.get("error")) or "no reason given"
                        raise BranchError(
                            f"Neon could not {action} ({status}: {said}): try again; the project's "
                            f"operations at {CONSOLE} tell more."
                        )
                    if time.monotonic() > deadline:
                        raise BranchError(
                            f"Neon did not {action} in {self.patience:.0f} seconds: see the project's "
                            f"operations at {CONSOLE}, and try again when they are done."
                        )
                    time.sleep(delay)
                    delay = min(2 * delay, self.pace)
                    state = self.get(f"operations/{quoted(operation.get('id'))}", "operation")["operation"]

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Give up sooner inside."""
        before = self.budget, self.patience
        self.budget, self.patience = (min(seconds, self.haste) for seconds in before)
        try:
            yield
        finally:
            self.budget, self.patience = before

    def _persist(self, ask: Callable[[], Answer], look: Callable[[NeonError], Answer | None]) -> Answer:
        with Progress("Waiting for Neon"):
            return self._insist(ask, look)

    def _insist(self, ask: Callable[[], Answer], look: Callable[[NeonError], Answer | None]) -> Answer:
        deadline = time.monotonic() + self.budget
        for tries_left, pause in zip(
            reversed(range(self.tries)), pauses(self.first_delay, self.longest_delay, least=0), strict=False
        ):
            try:
                return ask()
            except NeonError as error:
                if (found := look(error)) is not None:
                    return found
                delay = max(pause, min(error.wait, self.longest_delay))
                may_pass = error.status in PASSING or error.is_unclear
                if not (may_pass and tries_left and time.monotonic() + delay < deadline):
                    raise
            time.sleep(delay)
        raise AssertionError

    def _ask(self, method: str, path: str, holding: tuple[str, ...], **content: Any) -> Answer:
        try:
            response = self._http.request(method, path, timeout=self.timeout, **content)
        except httpx.HTTPError as error:
            raise NeonError(0, self._line(error) or type(error).__name__) from None
        try:
            answer: Any = response.json() if response.content else {}
        except ValueError:
            answer = None
        if not response.is_success:
            message = answer.get("message") if isinstance(answer, dict) else None
            said = self._line(message) or response.reason_phrase or "no reason given"
            raise NeonError(response.status_code, said, _wait(response))
        if not isinstance(answer, dict) or not all(_is_whole(answer.get(name)) for name in holding):
            raise NeonError(0, f"what it says to {method} {path} cannot be understood")
        return answer

    def _line(self, said: object) -> str:
        """Return the start of a message, on one line and without secrets."""
        text = without_addresses(redacted(" ".join(str(said or "").split())))
        return text[:300].rstrip(". ")


def quoted(identity: object) -> str:
    """Return an id as a part of a path. A path without it would mean something else."""
    if not isinstance(identity, str) or not identity.strip("./"):
        raise BranchError("Neon named something without an id: list the branches again.")
    return quote(identity, safe="")


@cache
def _certificates() -> ssl.SSLContext:
    """Read them once for all clients: it takes longer than a call."""
    return httpx.create_ssl_context()


def _is_safe(url: str) -> bool:
    """Tell whether only who is meant can read what is sent there."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    is_here = address.host in ("127.0.0.1", "::1", "localhost")
    return bool(address.host) and (address.scheme == "https" or (is_here and address.scheme == "http"))


def _is_whole(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, dict) and _is_whole(item) for item in value)
    return isinstance(value.get("id") if isinstance(value, dict) else value, str)


def _wait(response: httpx.Response) -> float:
    """Return the seconds that Retry-After asks for, which may also be a date."""
    said = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
