"""Migrations as somebody would write them by hand: short, and in several steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

from django.db import migrations
from django.db.migrations.operations.base import Operation
from django.db.migrations.writer import MigrationWriter

LONGEST_LINE = 88
KEYWORDS = ("reverse_sql", "database_operations", "state_operations", "preserve_default")

FILL = """\
def fill(apps, schema_editor):
    {name} = apps.get_model({label!r}, {name!r})
    rows = {name}.objects.using(schema_editor.connection.alias){where}.order_by('pk')
    batch = rows[:1000]
    while keys := list(batch.values_list('pk', flat=True)):
        rows.filter(pk__in=keys).update({values})
        batch = rows.filter(pk__gt=keys[-1])[:1000]


"""


@dataclass(frozen=True)
class Fill:
    """Rows of a model that get ``values`` in batches, where the first is NULL; ... is for a person to say."""

    label: str
    model: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A migration of its own: its operations, or rows that it fills."""

    operations: tuple[Operation, ...] = ()
    when: str = ""
    is_atomic: bool = True
    fill: Fill | None = None


@dataclass(frozen=True)
class Way:
    """How to do something instead, in a sentence or two, and the migrations that do it."""

    instead: str
    steps: tuple[Step, ...] = ()

    @property
    def code(self) -> str:
        """The migrations in Python, without dependencies; "" if there are none or they cannot be written."""
        imports = {"from django.db import migrations, models"}
        try:
            texts = [_step(each, imports) for each in self.steps]
        except ValueError:  # A value that cannot be written: a lambda, say.
            return ""
        lines = sorted(imports - {"from django.db import models"}, key=lambda line: line.split()[1])
        return "\n\n\n".join(["\n".join(lines), *texts]) if texts else ""


def _step(step: Step, imports: set[str]) -> str:
    text = f"# {step.when}\n" if step.when else ""
    written = [_operation(each, imports) for each in step.operations]
    if step.fill:
        names = list(step.fill.values)
        values = [f"{name}={_value(value, imports)}" for name, value in step.fill.values.items()]
        text += FILL.format(
            label=step.fill.label,
            name=step.fill.model,
            where=f".filter({names[0]}=None)" if names else "",
            values=", ".join(values) or "...",
        )
        written.append("migrations.RunPython(fill, migrations.RunPython.noop)")
    atomic = "" if step.is_atomic else "    atomic = False\n"
    operations = indent("".join(f"{each},\n" for each in written), " " * 8)
    return f"{text}class Migration(migrations.Migration):\n{atomic}    operations = [\n{operations}    ]"


def _operation(operation: Operation, imports: set[str]) -> str:
    name, _, arguments = operation.deconstruct()
    if hasattr(migrations, name):
        name = f"migrations.{name}"
    else:
        imports.add(f"from {type(operation).__module__} import {name}")
    parts = []
    for key, value in arguments.items():
        if key.endswith("_operations"):
            inner = "".join(f"{_operation(each, imports)},\n" for each in value)
            text = f"[\n{indent(inner, ' ' * 4)}]"
        elif key == "reverse_sql" and value == migrations.RunSQL.noop:
            text = "migrations.RunSQL.noop"
        else:
            text = _value(value, imports)
        parts.append(f"{key}={text}" if key in KEYWORDS else text)
    line = f"{name}({', '.join(parts)})"
    if len(line) <= LONGEST_LINE and "\n" not in line:
        return line
    lines = "".join(f"{part},\n" for part in parts)
    return f"{name}(\n{indent(lines, ' ' * 4)})"


def _value(value: Any, imports: set[str]) -> str:
    if value is ...:
        return "..."
    text, needed = MigrationWriter.serialize(value)
    imports.update(needed)
    return str(text)
