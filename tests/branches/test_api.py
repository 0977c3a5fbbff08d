"""The calls of Neon's API: what is tried again, how long, and what is said in the end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.branches.api import Api, NeonError
from workbench.branches.errors import BranchError

KEY = "napi_s3cr3tk3y0123456789abcdef"
PROJECT = "cool-forest-123456"
FINE: tuple[int, dict[str, str], str] = (200, {}, '{"branch": {"id": "br-1"}}')


class Scripted(HTTPServer):
    """Gives the answers it is told to, one after another, the last of them from then on."""

    answers: list[tuple[int, dict[str, str], str]]
    requests: list[tuple[str, str, float]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/v2"

    @property
    def waits(self) -> list[float]:
        times = [when for *_, when in self.requests]
        return [later - sooner for sooner, later in pairwise(times)]


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path, time.monotonic()))
        answers = self.server.answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        content = body.encode()
        with suppress(OSError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[Scripted]:
    with Scripted(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Scripted) -> Scripted:
    running.answers = [FINE]
    running.requests = []
    return running


def api(server: Scripted, **pace: float) -> Api:
    made = Api(server.url, key=KEY, project=PROJECT)
    vars(made).update({"first_delay": 0.001, "longest_delay": 0.01, "pace": 0.001, **pace})
    return made


def refusal(status: int, message: str = "no", **headers: str) -> tuple[int, dict[str, str], str]:
    said = {"request_id": "r", "code": "", "message": message}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(said)


def sentence(ask: Callable[[], Any]) -> str:
    with pytest.raises(BranchError) as caught:
        ask()
    said = str(caught.value)
    assert KEY not in repr(vars(caught.value)) + said
    assert "\n" not in said
    assert said.endswith(".")
    return said


@pytest.mark.parametrize("key", ["", " ", "napi_a b", "napi_a\n", "napi_a\r\nX-Evil: 1", "napi_é", "\0"])
def test_a_key_that_cannot_be_one_is_not_sent_and_not_shown(key: str) -> None:
    said = sentence(lambda: Api("https://console.neon.tech/api/v2", key=key, project=PROJECT))
    assert "NEON_API_KEY" in said
    assert not key.strip() or key.strip() not in said


@pytest.mark.parametrize("project", ["", "../other", "a/b", "A", "a" * 61, "a b"])
def test_a_project_that_cannot_be_one_does_not_become_another_path(project: str) -> None:
    assert "NEON_PROJECT_ID" in sentence(lambda: Api("https://neon.test", key=KEY, project=project))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "console.neon.tech",
        "http://console.neon.tech",
        "ftp://127.0.0.1",
        "https://",
        "https://a:b",
        "https://\0",
    ],
)
def test_the_key_is_sent_over_tls_only_or_within_this_machine(url: str) -> None:
    assert "https://" in sentence(lambda: Api(url, key=KEY, project=PROJECT))


def test_a_redirect_is_not_followed(server: Scripted) -> None:
    server.answers = [(302, {"Location": "http://127.0.0.1:1/"}, "")]
    assert "NEON_API_URL leads elsewhere (302: Found)" in sentence(lambda: api(server).get("branches"))
    assert len(server.requests) == 1


def test_where_nothing_listens_a_sentence_says_what_to_check(server: Scripted) -> None:
    made = Api("http://127.0.0.1:1/api/v2", key=KEY, project=PROJECT)
    vars(made).update(first_delay=0.001, tries=3)
    assert "Connection refused): check the network" in sentence(lambda: made.get("branches"))


SAID = {
    "a\n b\t c.": "(400: a b c)",
    f"the key {KEY} is odd": "(400: the key ******** is odd)",
    "postgresql://alex:npg_s3cret@host/db": "(400: postgresql://alex:********@host/db)",
    "x" * 5000: "x)",
    "": "(400: Bad Request)",
}


@pytest.mark.parametrize("message", SAID, ids=range(len(SAID)))
def test_what_neon_says_is_told_on_one_line_without_secrets(server: Scripted, message: str) -> None:
    server.answers = [refusal(400, message)]
    said = sentence(lambda: api(server).get("branches"))
    assert SAID[message] in said
    assert len(said) < 500


@given(
    body=st.text()
    | st.from_type(dict).map(repr)
    | st.recursive(st.none() | st.text(), st.lists).map(json.dumps)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_whatever_a_page_holds_there_is_a_sentence(server: Scripted, body: str) -> None:
    server.answers = [(400, {}, body)]
    assert "Neon refuses that (400" in sentence(lambda: api(server).get("branches"))


@pytest.mark.parametrize(
    "body", ["", "null", "[]", "{", '"branch"', "{}", '{"branch": {}}', '{"branch": [{}]}', "\x00"]
)
def test_an_answer_without_what_was_asked_for_is_no_answer(server: Scripted, body: str) -> None:
    server.answers = [(200, {}, body)]
    assert "GET branches/br-1 cannot be understood" in sentence(
        lambda: api(server, tries=2).get("branches/br-1", "branch")
    )
    server.answers = [(200, {}, body), FINE]
    assert api(server).get("branches/br-1", "branch") == {"branch": {"id": "br-1"}}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 409, 410, 412, 422])
def test_what_will_not_pass_is_not_tried_again(server: Scripted, status: int) -> None:
    server.answers = [refusal(status)]
    sentence(lambda: api(server).get("branches"))
    sentence(lambda: api(server).send("DELETE", "branches/br-1", happened=lambda: None))
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [423, 429, 503])
def test_what_was_not_begun_is_tried_again_without_a_look(server: Scripted, status: int) -> None:
    server.answers = [refusal(status), refusal(status), FINE]
    api(server).send("POST", "branches", "branch", body={}, happened=unasked)
    assert [method for method, *_ in server.requests] == ["POST"] * 3


@pytest.mark.parametrize("status", [500, 502, 504])
def test_what_may_have_been_carried_out_is_tried_again_only_if_it_was_not(
    server: Scripted, status: int
) -> None:
    server.answers = [refusal(status), FINE]
    found = api(server).send("POST", "branches", "branch", body={}, happened=lambda: {"branch": "found"})
    assert found == {"branch": "found"}
    assert len(server.requests) == 1
    server.answers = [refusal(status), FINE]
    api(server).send("POST", "branches", "branch", body={}, happened=lambda: None)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [404, 409])
def test_a_refusal_that_an_earlier_try_explains_is_success(server: Scripted, status: int) -> None:
    server.answers = [refusal(status)]
    assert api(server).send("DELETE", "branches/br-1", happened=dict) == {}


@pytest.mark.parametrize(
    "asked", ["0.2", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)]
)
def test_the_wait_that_neon_asks_for_is_kept(server: Scripted, asked: str | Callable[[], str]) -> None:
    server.answers = [refusal(429, retry_after=asked if isinstance(asked, str) else asked()), FINE]
    api(server, longest_delay=0.5).get("branches")
    assert server.waits[0] > 0.19


@pytest.mark.parametrize(
    "asked", ["3600", "1e999", "nan", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "-1", "", "9" * 99]
)
def test_no_wait_that_neon_asks_for_is_longer_than_ours(server: Scripted, asked: str) -> None:
    server.answers = [refusal(429, retry_after=asked), FINE]
    api(server, longest_delay=0.05).get("branches")
    assert server.waits[0] < 1


def test_waits_grow_with_jitter_up_to_the_longest(server: Scripted) -> None:
    server.answers = [refusal(503)]
    sentence(lambda: api(server, first_delay=0.001, longest_delay=0.02, tries=40).get("branches"))
    assert len(server.requests) == 40
    assert max(server.waits[:3]) < 0.02
    assert min(server.waits[5:]) < 0.01 < max(server.waits[5:])


def test_all_tries_together_end_with_the_budget(server: Scripted) -> None:
    server.answers = [refusal(423)]
    began = time.monotonic()
    sentence(
        lambda: api(server, longest_delay=0.05, first_delay=0.05, tries=1000, budget=0.3).get("branches")
    )
    assert time.monotonic() - began < 20


def test_pages_end_even_if_the_same_one_comes_again(server: Scripted) -> None:
    server.answers = [(200, {}, '{"branches": [], "pagination": {"next": "a"}}')]
    assert len(list(islice(api(server).pages("branches", "branches"), 9))) == 2


def operation(status: object, **more: object) -> tuple[int, dict[str, str], str]:
    return (
        200,
        {},
        json.dumps({"operation": {"id": "op-1", "action": "create_branch", "status": status, **more}}),
    )


@pytest.mark.parametrize("status", ["failed", "error", "cancelled"])
def test_an_operation_that_fails_is_named_with_its_reason(server: Scripted, status: str) -> None:
    server.answers = [operation("running"), operation(status, error="no\nspace.")]
    said = sentence(lambda: api(server).finish([{"id": "op-1", "status": "scheduling"}]))
    assert f"could not create branch ({status}: no space)" in said


@pytest.mark.parametrize("status", ["running", "cancelling", "unheard_of", None])
def test_an_operation_that_does_not_end_is_waited_for_only_so_long(server: Scripted, status: object) -> None:
    server.answers = [operation(status)]
    said = sentence(lambda: api(server, patience=0.05).finish([{"id": "op-1", "status": "scheduling"}]))
    assert "did not create branch in" in said


@pytest.mark.parametrize("status", ["finished", "skipped"])
def test_operations_are_asked_for_until_each_is_done(server: Scripted, status: str) -> None:
    server.answers = [operation("scheduling"), operation("unheard_of"), operation(status)]
    api(server).finish([{"id": "op-1", "status": "running"}, {"id": "op-2", "status": "finished"}])
    assert [path.rpartition("/")[2] for _, path, _ in server.requests] == ["op-1"] * 3


def test_an_operation_without_an_id_is_not_asked_for(server: Scripted) -> None:
    assert "without an id" in sentence(lambda: api(server).finish([{"status": "running"}]))
    assert server.requests == []


def test_what_neon_refused_can_be_told_by_its_status(server: Scripted) -> None:
    server.answers = [refusal(409, "branch already exists")]
    with pytest.raises(NeonError) as caught:
        api(server).get("branches")
    assert (caught.value.status, caught.value.said) == (409, "branch already exists")


def unasked() -> None:
    raise AssertionError
