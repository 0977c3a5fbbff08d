"""``?`` and Shift+Tab: signatures as they are written, and models with their fields and relations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from django.db.models import Field, Model, QuerySet
from django.db.models.fields import NOT_PROVIDED
from IPython.core import oinspect
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.tokenutil import line_at_cursor

from workbench.notebook.quiet import quiet
from workbench.schema.history import is_historical

MAGIC = re.compile(r"\s*(%%?(\w+))")


def register(shell: InteractiveShell) -> None:
    shell.inspector = Inspector(
        theme_name=shell.colors, str_detail_level=shell.object_info_string_level, parent=shell
    )
    kernel: Any = getattr(shell, "kernel", None)
    if kernel is None:
        return
    inspect_ = kernel.do_inspect

    def do_inspect(code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()) -> Any:
        """Take the line of a magic for the magic, not for a function of that name, and query nothing."""
        line, _ = line_at_cursor(code, cursor_pos)
        magic = MAGIC.match(line)
        with quiet():
            if magic is None or shell.find_magic(magic[2]) is None:
                return inspect_(code, cursor_pos, detail_level, omit_sections)
            found = shell.object_inspect_mime(magic[1], detail_level, omit_sections)
        data = {kind: said for kind, said in found.items() if kind != "text/html" or shell.enable_html_pager}
        return {"status": "ok", "found": True, "data": data, "metadata": {}}

    kernel.do_inspect = do_inspect


class Inspector(oinspect.Inspector):
    def _getdef(self, obj: Any, oname: str = "") -> str | None:
        if isinstance(obj, type) and issubclass(obj, Model):
            return f"{oname}({', '.join(field.attname for field in obj._meta.concrete_fields)})"
        if not callable(obj):
            return None
        try:
            return f"{oname}{signature(obj)}"
        except (TypeError, ValueError):
            return None

    def info(self, obj: Any, oname: str = "", info: Any = None, detail_level: int = 0) -> Any:
        with quiet():  # A queryset's text, and its length, are its rows.
            said = super().info(obj, oname, info, detail_level)
        model = obj if isinstance(obj, type) else type(obj)
        if issubclass(model, Model) and model is not Model:
            said |= {"docstring": described(model), "init_docstring": None, "class_docstring": None}
            said["subclasses"] = None
            said["file"] = None if is_historical(model) else said["file"]
        elif isinstance(obj, QuerySet):
            said["string_form"] = _sql(obj)
        return said


def signature(function: Any) -> str:
    """Return the signature as it is written, over several lines where it is long."""
    found = inspect.signature(function)
    parameters = [each.replace(annotation=_said(each.annotation)) for each in found.parameters.values()]
    found = found.replace(parameters=parameters, return_annotation=_said(found.return_annotation))
    return oinspect._render_signature(found, "")


class _Written(str):
    """An annotation that is a text, because it is not evaluated: shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _said(annotation: Any) -> Any:
    return _Written(annotation) if isinstance(annotation, str) else annotation


def _sql(rows: QuerySet[Any]) -> str:
    try:
        with quiet():
            return str(rows.query)
    except Exception:  # An empty one has none.
        return f"a queryset of {rows.model._meta.label}"


def described(model: type[Model]) -> str:
    """Return what a person asks of a model, as a docstring."""
    said = [*texts(model)]
    for title, rows in sections(model):
        width = max(len(name) for name, _ in rows)
        said.append("\n".join([f"{title}:", *(f"    {name.ljust(width)}  {what}" for name, what in rows)]))
    return "\n\n".join(said)


def texts(model: type[Model]) -> Iterator[str]:
    """Say what model it is, and what its author wrote about it."""
    as_of = f", as of {model.as_of_migration}" if is_historical(model) else ""  # type: ignore[attr-defined]
    yield f"{model._meta.label}, table {model._meta.db_table}{as_of}"
    own = inspect.cleandoc(model.__doc__ or "")
    if own and not own.startswith(f"{model.__name__}("):  # Django's own text names the fields.
        yield own


def sections(model: type[Model]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Give its fields, what leads to it, and its managers, each with what there is to know."""
    fields = [field for field in model._meta.get_fields() if isinstance(field, Field)]
    yield "Fields", [(field.name, _field(field)) for field in fields]
    if reverse := [*_reverse(model)]:
        yield "From other models", reverse
    if managers := model._meta.managers_map:
        yield "Managers", [(name, type(each).__name__) for name, each in managers.items()]


def _field(field: Any) -> str:
    kind = type(field).__name__
    if field.is_relation and field.related_model:
        kind = f"{kind} to {_name(field.related_model)}"
    facts = [
        f"at most {field.max_length} letters" if field.max_length else "",
        f"{field.max_digits} digits, {field.decimal_places} decimals" if hasattr(field, "max_digits") else "",
        "primary key" if field.primary_key else "unique" if field.unique else "",
        "may be NULL" if field.null else "",
        "may be blank" if field.blank and field.editable and not field.primary_key else "",
        f"default {field.default!r}" if _is_plain(field.default) else "",
        "set when it is made" if getattr(field, "auto_now_add", False) else "",
        "set at each save" if getattr(field, "auto_now", False) else "",
        f"one of {', '.join(map(repr, dict(field.flatchoices)))}" if field.choices else "",
    ]
    if field.is_relation and field.related_model and field.concrete and not field.many_to_many:
        facts.append(f"key {field.attname}; in queries {field.name}__{_first(field.related_model)}")
    return ", ".join(filter(None, [kind, *facts]))


def _is_plain(default: Any) -> bool:
    return default is not NOT_PROVIDED and not callable(default)


def _reverse(model: type[Model]) -> Iterator[tuple[str, str]]:
    for field in model._meta.get_fields():
        if isinstance(field, Field) or not field.related_model or field.hidden:
            continue
        other = field.related_model
        all_of = "" if field.one_to_one else ".all()"
        whose = f"{_name(other)} whose {field.field.name} it is"
        in_queries = f"in queries {field.name}__{_first(other)}"
        yield (
            f"{field.get_accessor_name()}{all_of}",
            f"{'the' if field.one_to_one else 'each'} {whose}; {in_queries}",
        )


def _name(model: Any) -> str:
    return model if isinstance(model, str) else model.__name__


def _first(model: Any) -> str:
    """Return a field to tell a row by: the first that is no key."""
    fields = [] if isinstance(model, str) else model._meta.concrete_fields
    return next((field.name for field in fields if not (field.primary_key or field.is_relation)), "pk")
