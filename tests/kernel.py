"""A real kernel of the workbench, as JupyterLab or nbval would start it."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jupyter_client.manager import start_new_kernel

from tests.throwaway import PROJECT, environment


@dataclass
class Outcome:
    """What a cell put out, as plain text: its streams, its result, to what a part of that was changed in the
    end, and its error as IPython shows it.
    """

    stdout: str = ""
    stderr: str = ""
    result: str = ""
    updated: str = ""
    error: list[str] = field(default_factory=list)


class Kernel:
    def __init__(
        self, changes: Mapping[str, str | None] | None = None, cwd: Path = PROJECT / "notebooks"
    ) -> None:
        self._manager, self._client = start_new_kernel(
            kernel_name="workbench", cwd=str(cwd), env=environment(changes)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        cell: str,
        *,
        interrupt_after: float | None = None,
        timeout: float = 60,
        attended: bool = False,
        silent: bool = False,
    ) -> Outcome:
        """Run a cell as nbval does, with nobody to answer questions, or ``attended`` as in a lab; interrupt
        it after some seconds.
        """
        request = self.begin(cell, attended=attended, silent=silent)
        if interrupt_after is not None:
            self.await_start(request)
            time.sleep(interrupt_after)
            self.interrupt()
        return self.finish(request, timeout=timeout)

    def begin(self, cell: str, *, attended: bool = False, silent: bool = False) -> str:
        """Let a cell run, and return what ``finish`` knows it by."""
        request: str = self._client.execute(cell, store_history=attended, allow_stdin=attended, silent=silent)
        return request

    def await_start(self, request: str, *, timeout: float = 60) -> None:
        """Wait until a cell has begun: until then ipykernel ignores interrupts. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        message: dict[str, Any] = {"parent_header": {}}
        while message["parent_header"].get("msg_id") != request or message["msg_type"] != "execute_input":
            message = self._message(deadline)

    def finish(self, request: str, *, timeout: float = 60) -> Outcome:
        """Wait until a cell ends, and return what it put out. Raises TimeoutError after some seconds, or
        once the kernel is dead.
        """
        deadline = time.monotonic() + timeout
        outcome = Outcome()
        while True:
            message = self._message(deadline)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream" if content["name"] == "stdout":
                    outcome.stdout += content["text"]
                case "stream":
                    outcome.stderr += content["text"]
                case "execute_result" | "display_data":
                    outcome.result += content["data"]["text/plain"]
                case "update_display_data":
                    outcome.updated = content["data"]["text/plain"]
                case "error":
                    outcome.error = content["traceback"]
                case "status" if content["execution_state"] == "idle":
                    return outcome

    def _message(self, deadline: float) -> dict[str, Any]:
        while time.monotonic() < deadline:
            try:
                message: dict[str, Any] = self._client.get_iopub_msg(timeout=1)
                return message
            except queue.Empty:
                if not self.is_alive:
                    raise TimeoutError("The kernel is dead.") from None
        raise TimeoutError("The cell does not end.")

    @property
    def is_alive(self) -> bool:
        alive: bool = self._manager.is_alive()
        return alive

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def kill(self) -> None:
        """End the process at once, as ``kill -9`` does."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def close(self) -> None:
        """Shut the kernel down as a lab does; it may be dead already."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=False)
