"""The files that the lab shows: those of the project, and the welcome page, which is on no disk."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

from workbench.lab.welcome import FOLDER, NAME, PATH, described, is_as_it_came, welcome


class Contents(AsyncLargeFileManager):
    async def get(
        self,
        path: str,
        content: bool = True,
        type: Any = None,
        format: Any = None,
        require_hash: bool = False,
    ) -> dict[str, Any]:
        """Return the model of a file or folder, as Jupyter's contents API describes it."""
        if self._is_welcome(path):
            return await self._welcome(content, require_hash)
        model: dict[str, Any] = await super().get(path, content, type, format, require_hash)
        if content and model["type"] == "directory" and model["path"].strip("/") == FOLDER:
            model["content"].append(await self._welcome(content=False, require_hash=False))
        if content and model["type"] == "notebook" and self._is_lesson(path):
            _begin(model["content"])
        return model

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        if self._is_welcome(path):
            raise HTTPError(403, f"{NAME} is made anew each time it is opened: it cannot be saved.")
        saved: dict[str, Any] = await super().save(model, path)
        return saved

    async def file_exists(self, path: str) -> bool:
        return self._is_welcome(path) or bool(await super().file_exists(path))

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        return [] if self._is_welcome(path) else list(await super().list_checkpoints(path))

    async def create_checkpoint(self, path: str) -> dict[str, Any]:
        if self._is_welcome(path):  # There is nothing to go back to.
            return {"id": NAME, "last_modified": datetime.now(UTC)}
        checkpoint: dict[str, Any] = await super().create_checkpoint(path)
        return checkpoint

    def _is_lesson(self, path: str) -> bool:
        folder, _, name = path.strip("/").rpartition("/")
        return folder == FOLDER and name in described(Path(self.root_dir))

    def _is_welcome(self, path: str) -> bool:
        return path.strip("/") == PATH

    async def _welcome(self, content: bool, require_hash: bool) -> dict[str, Any]:
        now = datetime.now(UTC)
        server: Any = self.parent
        # Not for each look at the folder, and not in the server's loop: it reads every notebook.
        text = await asyncio.to_thread(welcome, server.page_url) if content or require_hash else ""
        model = {
            "name": NAME,
            "path": PATH,
            "type": "file",
            "mimetype": "text/markdown",
            "format": "text" if content else None,
            "content": text if content else None,
            "created": now,
            "last_modified": now,
            "size": len(text.encode()) or None,
            "writable": True,
        }
        return model | self._get_hash(text.encode()) if require_hash else model


def _begin(lesson: dict[str, Any]) -> None:
    """Let a lesson that is as it came be one that nobody ran: its outputs tell what will come."""
    from ipykernel.ipkernel import IPythonKernel

    if not is_as_it_came(lesson):
        return
    # As the kernel will say it. Else the notebook has changed when it is only opened.
    lesson["metadata"]["language_info"] = dict(IPythonKernel.language_info)
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
