"""What ``%manage`` lists: the commands there are, those first that are the project's or of every day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from django.apps import apps
from django.core.management import get_commands, load_command_class

from workbench.notebook.persons import is_own_file
from workbench.show import Grid, Part, Row, Shown, Words

# They ask, serve until they are stopped, or, like testserver, leave the connection at another database.
NEED_A_TERMINAL = {
    "dbshell",
    "mail_debug",
    "runprofileserver",
    "runserver",
    "runserver_plus",
    "shell",
    "shell_plus",
    "testserver",
}
# Of Django's own, in the order in which one comes to need them.
EVERY_DAY = (
    *("makemigrations", "migrate", "showmigrations", "sqlmigrate", "inspectdb"),
    *("check", "dumpdata", "loaddata"),
)
DJANGO, OURS = "django.core", "workbench"


@dataclass(frozen=True, repr=False)
class Commands(Shown):
    """The commands that a cell can run, by the apps that have them. The person's own apps come first."""

    apps: Mapping[str, Sequence[str]]

    def _parts(self) -> Iterator[Part]:
        own = [app for app in self.apps if is_own_app(app)]
        told = {app: self.apps[app] for app in (*own, OURS) if app in self.apps}
        told[DJANGO] = [name for name in EVERY_DAY if name in self.apps[DJANGO]]
        for app, names in told.items():
            yield Grid(_called(app), [Row([name, _line(app, name)]) for name in names])
        left = {
            app: [name for name in names if name not in told.get(app, ())] for app, names in self.apps.items()
        }
        yield Grid("And", [Row([_called(app), ", ".join(names)]) for app, names in left.items() if names])
        yield Words(
            f"%manage help NAME says all about one. These need a terminal, after python manage.py: "
            f"{', '.join(sorted(NEED_A_TERMINAL & get_commands().keys()))}."
        )


def commands() -> Commands:
    """Return the commands that there are."""
    found: dict[str, list[str]] = {}
    for name, app in sorted(get_commands().items()):
        if name not in NEED_A_TERMINAL:
            found.setdefault(app if isinstance(app, str) else type(app).__module__, []).append(name)
    return Commands(dict(sorted(found.items())))


def is_own_app(name: str) -> bool:
    """Tell whether an app is the person's own."""
    path = next((app.path for app in apps.get_app_configs() if app.name == name), "")
    return is_own_file(path)


def _called(app: str) -> str:
    return "django" if app == DJANGO else app.removeprefix("django.contrib.")


def _line(app: str, name: str) -> str:
    """Return the first sentence of a command's help."""
    with suppress(Exception):  # One that cannot be loaded says so when it is run.
        said = " ".join(str(load_command_class(app, name).help).split())
        return f"{said.partition('. ')[0].rstrip('.')}."
    return ""
