from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from workbench.errors import OneSentence
from workbench.leaks import leaks
from workbench.show import counted, printable


class Command(BaseCommand):
    help = "Looks for secrets in the files, notebooks and outputs that git keeps, and says where they are."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = leaks(settings.BASE_DIR)
        except OneSentence as error:
            raise CommandError(str(error)) from None
        for leak in found:
            self.stdout.write(printable(str(leak)))
        if found:
            raise CommandError(
                f"{counted(len(found), 'secret')} in files that git keeps: take out what is told above, and "
                "change what was pushed already."
            )
