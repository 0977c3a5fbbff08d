from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper


class WorkbenchConfig(AppConfig):
    name = "workbench"

    def ready(self) -> None:
        from workbench import evolved, redaction
        from workbench.connection.backend import base

        redaction.remember_settings(settings)
        redaction.redact_logs()
        evolved.install()
        base.find_branch = _find_branch


def _find_branch(connection: BaseDatabaseWrapper) -> None:
    from workbench.branches.verbs import arrive

    arrive(connection)
