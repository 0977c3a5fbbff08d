"""Who is shown the page: it holds everybody's rows.

Whoever is on this machine, or was let in by Jupyter; everybody else must be a superuser, who could read the
same in the admin. A server for others (``WORKBENCH_WEB``) takes nobody for somebody on this machine: behind a
proxy, all of them seem to be.
"""

from __future__ import annotations

from ipaddress import ip_address

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.urls import NoReverseMatch, reverse

# What a server puts into a request's environ, where no client can: that it has asked for a token already.
LET_IN = "workbench.let_in"
# What proxies say of whom they speak for, and of themselves.
FORWARDED = (
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"),
    *("Via", "Cf-Connecting-Ip"),
)


class NotLetIn(Exception):
    """The page is not for this visitor. ``answer`` leads to a login, if there is one for such visitors."""

    def __init__(self, answer: HttpResponseBase | None) -> None:
        super().__init__("This page is for superusers: it shows the rows of everybody.")
        self.answer = answer


def check(request: HttpRequest) -> None:
    """Raise NotLetIn if the page is not to be shown. Reads a session, for visitors from elsewhere only."""
    if request.META.get(LET_IN) or _is_near(request):
        return
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        raise NotLetIn(_to_login(request))
    if not (user.is_active and user.is_superuser):
        raise NotLetIn(None)


def _is_near(request: HttpRequest) -> bool:
    if getattr(settings, "WORKBENCH_WEB", True) or any(name in request.headers for name in FORWARDED):
        return False
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _to_login(request: HttpRequest) -> HttpResponseBase | None:
    try:
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))
    except NoReverseMatch:
        return None
