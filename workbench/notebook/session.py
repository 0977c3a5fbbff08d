"""All that a kernel says to those who show it goes through here, and leaves without secrets.

Results, streams, errors, completions, what ``?`` and the debugger show, widgets: each is a message of
Jupyter's protocol (https://jupyter-client.readthedocs.io/en/stable/messaging.html), and each of its texts is
redacted.
"""

from __future__ import annotations

import codecs
import os
import threading
from typing import Any

from ipykernel.iostream import OutStream
from jupyter_client.session import Session

from workbench.redaction import MASK, begun, gone_on, may_be_secret, redacted_all

# So much of what a stream said before is remembered, for a secret that comes in pieces.
REMEMBERED_LETTERS = 1_000
PIPE_BYTES = 4096


class RedactingSession(Session):
    """Jupyter's, that redacts what it sends.

    A stream comes in pieces. One that ends with four letters or more of a secret waits for what comes next of
    the same cell: more of the stream, or anything else.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._unlock()
        if hasattr(os, "register_at_fork"):  # Else a copy of this process might wait for a thread it has not.
            os.register_at_fork(after_in_child=self._unlock)
        # By the name of the stream: what waits, with how it is sent; and the end of what was said.
        self._waiting: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {}
        self._said: dict[str, tuple[object, str]] = {}

    def _unlock(self) -> None:
        self._streams = threading.RLock()

    def serialize(self, msg: dict[str, Any], ident: Any = None) -> list[bytes]:
        content = self._packed(msg.get("content") or {})
        metadata = self.unpack(self._packed(msg["metadata"]))
        packed: list[bytes] = super().serialize({**msg, "content": content, "metadata": metadata}, ident)
        return packed

    def _packed(self, content: Any) -> bytes:
        """Return it as it is sent, without secrets: only then a set or an array is a list."""
        packed: bytes = content if isinstance(content, bytes) else self.pack(content)
        if may_be_secret(packed.decode("utf-8", "surrogateescape")):
            return self.pack(redacted_all(self.unpack(packed)))  # type: ignore[no-any-return]
        return packed

    def send(self, stream: Any, msg_or_type: Any, *args: Any, **options: Any) -> dict[str, Any] | None:
        is_piece = isinstance(msg_or_type, dict) and msg_or_type.get("msg_type") == "stream"
        with self._streams:
            if is_piece and not args:
                msg_or_type = self._whole(stream, msg_or_type, options)
                if msg_or_type is None:
                    return None
            elif self._waiting:
                self._release()
            sent: dict[str, Any] | None = super().send(stream, msg_or_type, *args, **options)
            return sent

    def _whole(self, stream: Any, msg: dict[str, Any], options: dict[str, Any]) -> dict[str, Any] | None:
        """Return the message with what waited before, and without what has to wait; None without any rest."""
        name, text, whose = msg["content"]["name"], msg["content"]["text"], msg["parent_header"].get("msg_id")
        if name in self._waiting and self._said[name][0] != whose:
            self._release()
        if name in self._waiting:
            text = self._waiting.pop(name)[1]["content"]["text"] + text
        said = self._said.get(name, (None, ""))
        before = said[1] if said[0] == whose else ""
        end = gone_on(before, text)
        after = 0 if text.endswith("\n") else min(begun(before + text), len(text) - end)
        now, later = text[: len(text) - after], text[len(text) - after :]
        self._said[name] = whose, (before + now)[-REMEMBERED_LETTERS:]
        if later:
            waiting = {**msg, "content": {"name": name, "text": later}}
            self._waiting[name] = stream, waiting, options
        now = f"{MASK}{now[end:]}" if end else now
        return {**msg, "content": {"name": name, "text": now}} if now else None

    def _release(self) -> None:
        for name in [*self._waiting]:
            stream, msg, options = self._waiting.pop(name)
            whose, before = self._said[name]
            self._said[name] = whose, (before + msg["content"]["text"])[-REMEMBERED_LETTERS:]
            super().send(stream, msg, **options)


class Stream(OutStream):
    """ipykernel's, that sends what programs print on their own to the notebook only.

    It would also write a copy, with whatever is in it, where the lab was started.
    """

    def _watch_pipe_fd(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self._fid is not None and (some := os.read(self._fid, PIPE_BYTES)) and self._should_watch:
            self.write(decoder.decode(some))
