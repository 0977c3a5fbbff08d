"""Django's page about an error, and its mails, without secrets: those show settings, variables and more."""

from __future__ import annotations

from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter

from workbench.redaction import redacted


class Reporter(ExceptionReporter):
    def get_traceback_html(self) -> SafeString:
        return mark_safe(redacted(super().get_traceback_html()))  # noqa: S308 - what was safe still is

    def get_traceback_text(self) -> SafeString:
        return mark_safe(redacted(super().get_traceback_text()))  # noqa: S308
