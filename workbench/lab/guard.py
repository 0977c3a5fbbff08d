"""Who can reach a lab, and that nobody works in it who was not let in.

A lab runs whatever code it is sent, as the person who started it. So it is for this machine only unless
``--public`` says otherwise, and what keeps strangers out is never off.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import product
from string import ascii_lowercase
from typing import Any

from jupyter_server.serverapp import ServerApp

from workbench.errors import OneSentence

# Of strangers' names, which are made up anew each time: nobody could have meant one.
LETTERS = 12
ENDS = ("com", "org", "net", "io", "dev", "invalid")
# The port is that of the machine that one comes from.
TUNNEL_PORT = 8888
TUNNEL = "ssh -N -L {port}:{there} USER@THIS-MACHINE"


class NotGuarded(OneSentence):
    """A lab that would be open to others, or to any page in the browser: what opens it, and what to do."""


def check(server: ServerApp, *, is_public: bool) -> None:
    """Raise NotGuarded if a server, which is configured, would let others in.

    Those who have its token are let in from elsewhere where it ``is_public``.
    """
    settings: dict[str, Any] = server.web_app.settings
    if not _asks(server.identity_provider):
        raise NotGuarded(
            "This lab would have neither a token nor a password, so whoever reaches it, as every user of "
            "this machine does, could run code as you: take out what empties IdentityProvider.token or "
            "ServerApp.token, and Jupyter makes one."
        )
    if settings["disable_check_xsrf"] or not settings["xsrf_cookies"]:
        raise NotGuarded(
            "With ServerApp.disable_check_xsrf any page in your browser could run code in this lab as you: "
            "take it out. A script that sends the header 'Authorization: token ...' does not need it."
        )
    pattern = settings.get("allow_origin_pat")
    if settings["allow_origin"] in ("*", "null") or (
        pattern and any(re.match(pattern, stranger) for stranger in _strangers())
    ):
        raise NotGuarded(
            "ServerApp.allow_origin lets any page in your browser run code in this lab as you: name the one "
            "that may, as in --ServerApp.allow_origin=https://hub.example.org."
        )
    if (way := _way_in(server)) and not is_public:
        raise NotGuarded(
            f"With {way} others can reach this lab, and whoever has its token runs any code as you: leave "
            f"that out and come from elsewhere through '{tunnel(server)}', or add --public if you mean it."
        )


def meaning(server: ServerApp) -> str:
    """Return what it means that others can reach a server, in one or two lines; "" where they cannot."""
    if not (way := _way_in(server)):
        return ""
    said = (
        f"Others can reach this lab ({way}). Whoever has its token runs any code as you: with your files, "
        f"your keys and your database."
    )
    if server.certfile or server.sock:
        return said
    return (
        f"{said}\nIt speaks plain HTTP: whoever is on the way can read the token. Encrypt it with --certfile "
        f"and --keyfile, or leave --public out and come through '{tunnel(server)}'."
    )


def _strangers() -> Iterator[str]:
    """Yield where pages come from that nobody could have meant."""
    yield "null"  # As anybody's does that is in a sandboxed frame.
    name = "".join(secrets.choice(ascii_lowercase) for _ in range(LETTERS))
    hosts = [*(f"{name}.{end}" for end in ENDS), f"www.{name}.com", name, "203.0.113.77"]
    for scheme, host, port in product(("http", "https"), hosts, ("", ":8443")):
        yield f"{scheme}://{host}{port}"


def _asks(provider: Any) -> bool:
    """Tell whether a stranger is asked for something that cannot be guessed."""
    if not provider.auth_enabled:
        return False
    # A file for JUPYTER_TOKEN_FILE may hold blanks only.
    return bool(getattr(provider, "hashed_password", "") or provider.token.strip() or not provider.token)


def _way_in(server: ServerApp) -> str:
    """Return the option that lets others reach the server; "" where none does."""
    if server.sock:
        return f"--sock-mode={server.sock_mode}" if int(server.sock_mode, 8) & 0o077 else ""
    if not _is_loopback(server.ip, server.port):
        return f"--ip={server.ip or '*'}"
    # A proxy on this machine speaks for others, and a page that has its name lead here is one of them.
    return "ServerApp.allow_remote_access" if server.web_app.settings["allow_remote_access"] else ""


def _is_loopback(host: str, port: int) -> bool:
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    # macOS has localhost as an address of the loopback interface, too.
    return all(each.is_loopback or (host == "localhost" and each.is_link_local) for each in addresses)


def tunnel(server: ServerApp) -> str:
    """Return the command by which one comes to a server from another machine, at TUNNEL_PORT there."""
    there = server.sock or f"localhost:{server.port or server.port_default_value}"
    return TUNNEL.format(port=TUNNEL_PORT, there=there)
