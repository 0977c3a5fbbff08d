"""The server behind the lab: Jupyter's own with our defaults, and with the page beside the notebooks."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx
from django.conf import settings
from jupyter_server.serverapp import ServerApp, flags, list_running_servers
from jupyter_server.utils import url_path_join
from jupyterlab.labapp import LabApp
from traitlets import Bool, Dict, default
from traitlets.config import Config

from workbench.lab import guard
from workbench.lab.contents import Contents
from workbench.lab.kernels import KernelSpecs
from workbench.lab.terminals import Terminals
from workbench.lab.welcome import PATH
from workbench.notebook.kernel import prepend
from workbench.notebook.kernelspec import NAME
from workbench.page.jupyter import PLACE

# overrides.json: what JupyterLab's settings are until they are changed in its Settings menu.
SETTINGS = Path(__file__).with_name("settings")
# custom.css: what its settings have no word for.
CUSTOM = Path(__file__).with_name("custom")


# How long a lab that runs may be too busy to answer.
BUSY_SECONDS = 10.0

PUBLIC = "Let others reach the lab, where --ip or the like says so; it prints what that means."


class Server(ServerApp):
    flags = Dict({**flags, "public": ({"Server": {"public": True}}, PUBLIC)})
    public = Bool(False, help=PUBLIC).tag(config=True)

    @default("static_custom_path")
    def _default_static_custom_path(self) -> list[str]:
        # The person's own custom.css wins.
        return [str(Path(self.config_dir, "custom")), str(CUSTOM)]

    def init_httpserver(self) -> None:
        # All options are read, and nobody is let in yet.
        guard.check(self, is_public=self.public)
        super().init_httpserver()

    def start_app(self) -> None:
        self.log.addFilter(_is_no_address)
        super().start_app()
        self.log.removeFilter(_is_no_address)
        if said := guard.meaning(self):
            print(said)
        if self.sock:
            print(
                f"It is at a socket file. '{guard.tunnel(self)}' leads there from another machine, to open:"
            )
        # With the token, unless the person chose that or a password, as Jupyter shows it.
        lab = self._address()
        print(f"JupyterLab   {lab.geturl()}")
        print(f"The page     {lab._replace(path=self._page_path()).geturl()}")
        print("Control-C stops both.", flush=True)

    def write_browser_open_files(self) -> None:
        # They hold the token, and Jupyter leaves to the umask who can read them.
        self.remove_browser_open_files()
        umask = os.umask(0o077)
        try:
            super().write_browser_open_files()
        finally:
            os.umask(umask)

    @property
    def page_url(self) -> str:
        """The address of the page, for a browser that is in the lab."""
        return self._address()._replace(path=self._page_path(), query="").geturl()

    def _page_path(self) -> str:
        path: str = url_path_join(self.base_url, PLACE, "/")
        return path

    def _address(self) -> SplitResult:
        """Return where Jupyter opens its browser, or where the person says that it is reached."""
        shown = urlsplit(self.public_url)
        if self.sock and not self.custom_display_url:  # No browser opens that.
            return shown._replace(scheme="http", netloc=f"localhost:{guard.TUNNEL_PORT}")
        # A browser takes localhost and 127.0.0.1 for two, and is let in where it came to only.
        return (
            shown if self.custom_display_url else shown._replace(netloc=urlsplit(self.connection_url).netloc)
        )


def lab(arguments: list[str]) -> ServerApp:
    """Return a lab that is ready to start. Jupyter's config files and ``arguments`` win over our defaults.

    Raises NotGuarded where they would let others in.
    """
    # For the terminals in it: the Python of this environment, wherever the lab was started from.
    prepend("PATH", str(Path(sys.executable).parent))
    LabApp.serverapp_class = Server
    server: ServerApp = LabApp.initialize_server(arguments, config=_defaults())
    return server


def running(folder: Path) -> str:
    """Return the address of the lab that serves a folder already, or ""."""
    for found in list_running_servers():
        if Path(found["root_dir"]) == folder and _answers(found):
            query = f"?token={found['token']}" if found["token"] else ""
            return f"{found['url']}lab/tree/{PATH}{query}"
    return ""


def _answers(found: dict[str, Any]) -> bool:
    # A server that was killed has left its notes, and its process and port to others.
    try:
        return httpx.get(f"{found['url']}api/status?token={found['token']}", timeout=BUSY_SECONDS).is_success
    except httpx.HTTPError:
        return False


def _defaults() -> Config:
    config = Config()
    config.LabApp.default_url = f"/lab/tree/{PATH}"
    config.LabApp.app_settings_dir = str(SETTINGS)
    config.LabApp.custom_css = True
    # Which tabs are open: of this project, not of the last lab of this person.
    config.LabApp.workspaces_dir = str(settings.WORKBENCH_HOME / "workspaces")
    config.ServerApp.contents_manager_class = Contents
    config.ServerApp.extra_services = ["workbench.page.jupyter"]
    config.ServerApp.kernel_spec_manager_class = KernelSpecs
    config.TerminalsExtensionApp.terminal_manager_class = Terminals
    config.MultiKernelManager.default_kernel_name = NAME
    # What is left in the terminal is the address, and what goes wrong.
    config.Application.log_level = "ERROR"
    config.ServerApp.answer_yes = True  # What Control-C asks for five seconds only.
    config.ServerApp.allow_root = hasattr(os, "geteuid") and os.geteuid() == 0
    config.ServerApp.open_browser = not _has_no_display()
    return config


def _is_no_address(record: logging.LogRecord) -> bool:
    # Jupyter logs where it is as something critical, in six lines.
    return not (record.levelno == logging.CRITICAL and record.getMessage().startswith("\n"))


def _has_no_display() -> bool:
    """Tell whether a browser could only open in the terminal, or nowhere."""
    if not sys.platform.startswith("linux"):
        return False
    return not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
