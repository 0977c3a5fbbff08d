"""Whatever is offered for a query, Django takes: tried with every model that is installed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import F, Model, QuerySet

from workbench.notebook.lookups import SEPARATOR, Use, names

MODELS = apps.get_models()


def query(model: type[Model], use: Use, name: str) -> QuerySet[Any]:
    rows = model._base_manager
    match use:
        case Use.LOOKUP:
            several = name.endswith(("__in", "__range"))
            value = True if name.endswith("__isnull") else ["1", "2"] if several else F("pk")
            return rows.filter(**{name: value})
        case Use.COLUMN:
            return rows.values(name)
        case Use.LOADED:
            return rows.only(name)
        case _:
            return rows.select_related(name)


@pytest.mark.parametrize("use", [Use.LOOKUP, Use.COLUMN, Use.LOADED, Use.JOINED])
def test_every_name_that_is_offered_is_one_that_a_query_takes(use: Use) -> None:
    tried = 0
    for model in MODELS:
        for start in ["", *(name for name, _ in names(model, "", use))]:
            for name, _ in names(model, start, use):
                if name.endswith(SEPARATOR):
                    continue
                tried += 1
                with suppress(ValidationError):  # The value was wrong for the field, not the name.
                    str(query(model, use, name).query)
    assert tried > len(MODELS) // 2


@pytest.mark.parametrize("typed", ["nothing", "nothing__name", "name__nothing__exact"])
def test_a_path_that_leads_nowhere_offers_nothing(typed: str) -> None:
    assert names(apps.get_model("catalog", "Author"), typed, Use.LOOKUP) == []
