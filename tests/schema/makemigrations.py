"""What makemigrations itself writes: run as a program, for many versions of one app, one after the other.

It reads from its first argument's file a list of [folder, what is typed, further arguments]; each folder
holds the app as a package ``catalog``, whose new migrations are left there.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import django
from django.apps import apps
from django.conf import settings
from django.core.management import call_command


def main(jobs: str) -> None:
    django.setup()
    for folder, typed, arguments in json.loads(Path(jobs).read_text(encoding="utf-8")):
        for name in [name for name in sys.modules if name.partition(".")[0] == "catalog"]:
            del sys.modules[name]
        apps.all_models["catalog"].clear()
        sys.path.insert(0, folder)
        sys.stdin = io.StringIO(typed)
        apps.set_installed_apps(settings.INSTALLED_APPS)
        call_command("makemigrations", "catalog", *arguments, skip_checks=True)
        apps.unset_installed_apps()
        sys.path.remove(folder)


if __name__ == "__main__":
    main(sys.argv[1])
