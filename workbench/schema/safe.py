"""Safe ways to do what hurts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlparse
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
    ValidateConstraint,
)
from django.db import connection, models
from django.db import migrations as ops
from django.db.backends.utils import truncate_name
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.functions import Cast, Now
from django.utils import timezone

from workbench.connection.names import of_table, quoted
from workbench.schema.facts import Passage
from workbench.schema.losses import NAME, PART
from workbench.schema.stakes import NAME_BYTES
from workbench.schema.steps import Fill, Step, Way

FLAGS = re.IGNORECASE | re.DOTALL
CREATE_INDEX = re.compile(
    rf"CREATE\s+(UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY\b)(?:IF\s+NOT\s+EXISTS\s+)?({PART})(.*)", FLAGS
)
DROP_INDEX = re.compile(rf"DROP\s+INDEX\s+(?!CONCURRENTLY\b)(?:IF\s+EXISTS\s+)?({NAME})", FLAGS)
REINDEX = re.compile(r"REINDEX\s+(INDEX|TABLE)\s+(?!CONCURRENTLY\b)(.*)", FLAGS)
ADD_CONSTRAINT = re.compile(
    rf"ALTER\s+TABLE\s+({NAME})\s+ADD\s+CONSTRAINT\s+({PART})\s+"
    r"(?:UNIQUE\s+(NULLS\s+NOT\s+DISTINCT\s*)?(\([^()]*\))(.*)|((?:CHECK|FOREIGN\s+KEY)\b.*))",
    FLAGS,
)
CHECK = re.compile(r"\bCHECK\s+(\(.*\))", FLAGS)
REMARKS = re.compile(r"^\s*--.*\n|\s+-- [\d,]+ times$", re.MULTILINE)
ASKS_OR_SETS = re.compile(r"\s*(?:SELECT|SET)\b", re.IGNORECASE)

# The same column, without a check that Postgres would make of every row.
UNCHECKED = {
    models.PositiveSmallIntegerField: models.SmallIntegerField,
    models.PositiveBigIntegerField: models.BigIntegerField,
    models.PositiveIntegerField: models.IntegerField,
}
NOT_NULL_LAST = " NOT NULL comes last, as for any column of a table with rows: after a CHECK."


@dataclass(frozen=True)
class Seen:
    """An operation of an app, what it did, and the models before and after it."""

    operation: Any
    label: str
    passage: Passage
    state: ProjectState
    after: ProjectState
    is_backwards: bool = False

    @property
    def operations(self) -> Iterator[Any]:
        """What works on the database: the operation, or those inside it."""
        waiting = [self.operation]
        while waiting:
            operation = waiting.pop(0)
            if isinstance(operation, ops.SeparateDatabaseAndState):
                waiting[:0] = operation.database_operations
            else:
                yield operation

    @property
    def parts(self) -> Iterator[Seen]:
        """The same, each with the models that it knows."""
        if not isinstance(self.operation, ops.SeparateDatabaseAndState):
            yield self
            return
        state = self.state
        for operation in self.operation.database_operations:
            after = state.clone()
            operation.state_forwards(self.label, after)
            yield from replace(self, operation=operation, state=state, after=after).parts
            state = after

    @property
    def of_models(self) -> list[Operation]:
        """What it changes in the models."""
        if isinstance(self.operation, ops.SeparateDatabaseAndState | ops.RunSQL):
            return list(self.operation.state_operations)
        return [self.operation]

    @property
    def statements(self) -> Iterator[str]:
        for text in self.passage.sql:
            for statement in sqlparse.split(REMARKS.sub("", text)):
                if not ASKS_OR_SETS.match(statement):
                    yield statement.rstrip("; \n")

    def before(self, name: str) -> Any:
        """Return a model of the app as it was before."""
        return self.state.apps.get_model(self.label, name)


def without_rewrite(seen: Seen) -> Way:
    """Return how to get there without a table being written anew."""
    for part in seen.parts:
        match part.operation:
            case ops.AddField(field=models.GeneratedField()):
                return _kept_by_the_code(part)
            case ops.AddField():
                return _default_later(part)
            case ops.AlterField(field=models.Field(primary_key=True)):
                return Way(
                    "Give the table a second key column that a trigger keeps equal, fill it in batches, "
                    "build its unique index concurrently, and make that the primary key with USING INDEX."
                )
            case ops.AlterField():
                return _expand(part)
    if re.search(r"\b(?:VACUUM|CLUSTER)\b", " ".join(seen.passage.sql), re.IGNORECASE):
        return Way(
            "VACUUM without FULL makes the space usable again and locks nobody out; pg_repack gives it back "
            "to the disk while the table is in use."
        )
    return Way("Make a new column or table beside the old, fill it in batches, and let the code change over.")


def in_use(seen: Seen) -> Way:
    """Return how rows are checked, and indexes built, while the table is in use."""
    for part in seen.parts:
        match operation := part.operation:
            case ValidateConstraint():
                return Way(
                    "Validate in a migration of its own: a lock that an operation before it took is kept "
                    "until their migration ends.",
                    (Step((operation,)),),
                )
            case ops.AddIndex():
                concurrently = AddIndexConcurrently(operation.model_name, operation.index)
                return Way(
                    "Build it concurrently, in a migration of its own that is not atomic.",
                    (Step((concurrently,), is_atomic=False),),
                )
            case ops.AddConstraint(constraint=ExclusionConstraint()):
                return Way(
                    "Postgres can neither build an exclusion constraint concurrently nor add it NOT VALID: "
                    "add it at a quiet hour, with a lock_timeout, or to a new table, filled in batches."
                )
            case ops.AddConstraint(constraint=models.CheckConstraint() as check):
                return Way(
                    "Add it NOT VALID, so that it holds for new rows at once, and validate it in a migration "
                    "of its own, while the table is in use.",
                    (
                        Step((AddConstraintNotValid(operation.model_name, check),)),
                        Step((ValidateConstraint(operation.model_name, check.name),)),
                    ),
                )
            case ops.AddField(field=models.Field(many_to_many=None | False)):
                return _column_first(part)
            case ops.AlterField() if _becomes_not_null(part):
                return Way(
                    "Let a CHECK say it first: added NOT VALID, then validated while the table is in use. "
                    "Postgres believes it, and sets NOT NULL without reading a row.",
                    _not_null(part),
                )
            case ops.AlterField(field=models.ForeignKey(null=True)) if _is_key(part):
                return _column_alone(part)
            case ops.RenameModel() | ops.RenameField():
                return names_kept(part)
    way = _as_seen(seen)
    return (
        way if way.instead else Way("Do it in a migration of its own, at a quiet hour, with a lock_timeout.")
    )


def in_batches(seen: Seen, table: str) -> Way:
    """Return how many rows of a table are changed without one transaction that holds them all."""
    words = "Change them in batches, in a migration of its own that is not atomic."
    for part in seen.parts:
        if isinstance(part.operation, ops.AlterField) and _becomes_not_null(part):
            return Way(
                f"{words} NOT NULL comes after that, by a CHECK that is validated first.",
                (_fill(part, _default(part.operation.field)), *_not_null(part)),
            )
    for model in seen.after.apps.get_models(include_auto_created=True):
        if model._meta.db_table == table:
            fill = Fill(model._meta.app_label, model.__name__)
            return Way(words, (Step(fill=fill, is_atomic=False),))
    return Way(words)


def names_kept(seen: Seen) -> Way:
    """Return how a thing goes, or gets another name, while older code still asks for it."""
    for part in seen.parts:
        match part.operation:
            case ops.RenameField():
                return _column_keeps_its_name(part)
            case ops.RenameModel():
                return _table_keeps_its_name(part)
            case ops.RemoveField() | ops.DeleteModel():
                return models_first(part)
            case ops.AlterModelTable() | ops.AlterField():
                return Way(
                    "Let it keep its name: db_table and db_column are seen by Django alone. Where it must "
                    "have another, add the new beside the old, and let the code change over."
                )
    return Way(
        "Take it out of the models first, and out of the database a release later, when no code asks for it."
    )


def models_first(seen: Seen) -> Way:
    """Return how a field or a model goes: out of the models first, out of the database a release later."""
    return (_field_first if isinstance(seen.operation, ops.RemoveField) else _model_first)(seen)


def fields_that_go(seen: Seen) -> list[Any]:
    """Return the fields whose columns go with a field, or a model."""
    operation = seen.operation
    if isinstance(operation, ops.DeleteModel):
        return list(seen.before(operation.name)._meta.local_fields)
    field = seen.before(operation.model_name)._meta.get_field(operation.name)
    return [] if field.many_to_many else [field]


def asked(field: Any, sql: Iterable[str] = ()) -> dict[str, Any]:
    """Return the options without which a field's column, that no code knows any more, is in the way.

    Not those that ``sql`` gave it.
    """
    given = " ".join(sql)
    options: dict[str, Any] = {}
    if not (field.null or field.has_db_default() or field.generated or "DROP NOT NULL" in given):
        options["null"] = True
    if field.remote_field and field.db_constraint and "DROP CONSTRAINT" not in given:
        options["db_constraint"] = False
    return options


def with_default(seen: Seen, column: str) -> Way:
    """Return how a column comes that older code gives no value for."""
    for part in seen.parts:
        if isinstance(operation := part.operation, ops.AddField):
            field, words = _with_db_default(operation.field, is_kept=operation.preserve_default)
            return Way(words, (Step((ops.AddField(operation.model_name, operation.name, field),)),))
    return Way(f"Give {column} a default in the database, or let it be NULL until all code knows it.")


def index_dropped(seen: Seen) -> Way:
    """Return how an index goes without waiting in everybody's way."""
    words = "Drop it concurrently, in a migration of its own that is not atomic."
    for part in seen.parts:
        if isinstance(operation := part.operation, ops.RemoveIndex):
            concurrently = RemoveIndexConcurrently(operation.model_name, operation.name)
            return Way(words, (Step((concurrently,), is_atomic=False),))
    return Way(words, _as_seen(seen).steps)


def _changed(field: Any, *without: str, kind: Any = None, **options: Any) -> Any:
    """Return a field like this one, with other options."""
    _, _, args, old = field.deconstruct()
    kept = {name: value for name, value in old.items() if name not in without}
    return (kind or type(field))(*args, **(kept | options))


def _fill(seen: Seen, value: Any, name: str = "") -> Step:
    model = seen.after.models[seen.label, seen.operation.model_name_lower].name
    return Step(fill=Fill(seen.label, model, {name or seen.operation.name: value}), is_atomic=False)


def _default_later(seen: Seen) -> Way:
    operation = seen.operation
    name, field = operation.name, operation.field
    kind = models.BigIntegerField if field.get_internal_type().endswith("AutoField") else None
    empty = _changed(field, "db_default", "default", "primary_key", "unique", kind=kind, null=True)
    steps: list[Operation] = [ops.AddField(operation.model_name, name, empty)]
    if field.has_db_default():
        later = _changed(field, "default", "unique", null=True)
        steps.append(ops.AlterField(operation.model_name, name, later))
    value = field.db_default if field.has_db_default() else ...
    return Way(
        "Postgres writes the table anew to give each row a value of its own. Add the column empty, with the "
        "default for new rows set after that, and fill the old ones in batches."
        f"{'' if field.null else NOT_NULL_LAST}",
        (Step(tuple(steps)), _fill(seen, value)),
    )


def _kept_by_the_code(seen: Seen) -> Way:
    operation = seen.operation
    plain = _changed(operation.field.output_field, null=True)
    return Way(
        "Postgres computes a stored column for every row at once. Keep an ordinary column, which the code or "
        "a trigger writes, and fill it in batches; for searches alone, an index of the expression will do.",
        (
            Step((ops.AddField(operation.model_name, operation.name, plain),)),
            _fill(seen, operation.field.expression),
        ),
    )


def _expand(seen: Seen) -> Way:
    operation = seen.operation
    name, field = operation.name, operation.field
    old = seen.before(operation.model_name)._meta.get_field(name)
    empty = _bare(_changed(field, "default", "db_default", "db_column", null=True))
    texts = (models.CharField, models.TextField)
    is_alike = isinstance(old, texts) == isinstance(field, texts)
    value = models.F(name) if is_alike else Cast(name, _changed(empty, "null"))
    return Way(
        "Few types change without the table being written anew: a varchar may grow, or become text. "
        f"Otherwise add {name}_new, let the code write both, and fill it in batches; the next release reads "
        f"it, and {name} goes after that.",
        (
            Step((ops.AddField(operation.model_name, f"{name}_new", empty),)),
            _fill(seen, value, f"{name}_new"),
        ),
    )


def _column_first(seen: Seen) -> Way:
    operation = seen.operation
    wanted = operation.field
    is_late = not (wanted.null or wanted.has_db_default())
    if is_late:
        wanted = _changed(wanted, "default", null=True)
    field = seen.after.apps.get_model(seen.label, operation.model_name)._meta.get_field(operation.name)
    table = field.model._meta.db_table
    place, column = of_table(table), quoted(field.column)
    sql: list[ops.RunSQL] = []
    names: list[str] = []
    if field.unique:
        sql += _unique(place, quoted(_name(table, field.column, "uniq")), f"({column})")
    elif field.db_index:
        sql.append(_index("", quoted(_name(table, field.column, "idx")), f" ON {place} ({column})"))
    if field.remote_field and field.db_constraint:
        to = field.target_field
        target = f"{of_table(to.model._meta.db_table)} ({quoted(to.column)})"
        names.append(_name(table, field.column, "fk"))
        rest = f"FOREIGN KEY ({column}) REFERENCES {target} DEFERRABLE INITIALLY DEFERRED"
        sql.append(_not_valid(place, quoted(names[-1]), rest))
    if check := CHECK.search(" ".join(seen.passage.sql)):
        names.append(_name(table, field.column, "check"))
        sql.append(_not_valid(place, quoted(names[-1]), f"CHECK {check[1]}"))
    alone = ops.AddField(operation.model_name, operation.name, _bare(wanted))
    whole = ops.AlterField(operation.model_name, operation.name, wanted)
    validated = [ValidateConstraint(operation.model_name, name) for name in names]
    way = _while_used(sql, [whole], validated)
    return Way(
        f"Add the column alone first. {way.instead}{NOT_NULL_LAST if is_late else ''}",
        (Step((alone,)), *way.steps),
    )


def _bare(field: Any) -> Any:
    if field.remote_field:
        return _changed(field, kind=models.ForeignKey, db_constraint=False, db_index=False)
    kind = next((bare for checked, bare in UNCHECKED.items() if isinstance(field, checked)), None)
    return _changed(field, "unique", "db_index", kind=kind, **({"db_index": False} if field.db_index else {}))


def _becomes_not_null(seen: Seen) -> bool:
    old = seen.state.models[seen.label, seen.operation.model_name_lower].fields[seen.operation.name]
    return bool(old.null and not seen.operation.field.null)


def _not_null(seen: Seen) -> tuple[Step, ...]:
    operation = seen.operation
    field = seen.before(operation.model_name)._meta.get_field(operation.name)
    table = field.model._meta.db_table
    name = _name(table, field.column, "not_null")
    check = models.CheckConstraint(condition=models.Q((f"{operation.name}__isnull", False)), name=name)
    alter: Operation = ops.AlterField(operation.model_name, operation.name, operation.field)
    if operation.field.has_default() or operation.field.has_db_default() or _is_key(seen):
        # With the table locked, Django would look for rows to give the default to, or check the key again.
        action = f"ALTER TABLE {of_table(table)} ALTER COLUMN {quoted(field.column)}"
        sql = ops.RunSQL(f"{action} SET NOT NULL", reverse_sql=f"{action} DROP NOT NULL")
        alter = ops.SeparateDatabaseAndState([sql], [alter])
    return (
        Step((AddConstraintNotValid(operation.model_name, check),)),
        Step((ValidateConstraint(operation.model_name, name),)),
        Step((alter, ops.RemoveConstraint(operation.model_name, name))),
    )


def _is_key(seen: Seen) -> bool:
    field = seen.before(seen.operation.model_name)._meta.get_field(seen.operation.name)
    return bool(field.remote_field and field.db_constraint)


def _column_alone(seen: Seen) -> Way:
    operation = seen.operation
    field = seen.before(operation.model_name)._meta.get_field(operation.name)
    action = f"ALTER TABLE {of_table(field.model._meta.db_table)} ALTER COLUMN {quoted(field.column)}"
    sql = ops.RunSQL(f"{action} DROP NOT NULL", reverse_sql=f"{action} SET NOT NULL")
    return Way(
        "Django takes a foreign key away and adds it again to change its column, and every row is checked. "
        "Change the column alone.",
        (Step((ops.SeparateDatabaseAndState([sql], [operation]),)),),
    )


def _column_keeps_its_name(seen: Seen) -> Way:
    operation = seen.operation
    field = seen.before(operation.model_name)._meta.get_field(operation.old_name)
    keeps = ops.AlterField(operation.model_name, operation.old_name, _changed(field, db_column=field.column))
    return Way(
        "Give the field its new name in Python only: with db_column the column keeps its own. Where that "
        "must change too, add a new column, let the code write both, and drop the old one a release later.",
        (Step((keeps, operation)),),
    )


def _table_keeps_its_name(seen: Seen) -> Way:
    operation = seen.operation
    words = "Give the model its new name in Python only: with db_table the table keeps its own."
    model = seen.before(operation.old_name)
    relations = [each for each in model._meta.get_fields(include_hidden=True) if each.is_relation]
    if any(each.related_model and each.related_model._meta.auto_created for each in relations):
        # Its columns there are named after it.
        return Way(f"{words} Its many-to-many fields need a through model whose fields have a db_column.")
    return Way(words, (Step((ops.AlterModelTable(operation.old_name, model._meta.db_table), operation)),))


def _field_first(seen: Seen) -> Way:
    operation = seen.operation
    words = "Take the field out of the models now, and leave the column; drop that in the next release."
    field = seen.before(operation.model_name)._meta.get_field(operation.name)
    if field.many_to_many:
        return Way(words)
    steps: list[Operation] = []
    if options := asked(field):
        words += " Until then it must ask nothing of the new code, which does not know it."
        steps.append(ops.AlterField(operation.model_name, operation.name, _changed(field, **options)))
    gone = ops.RemoveField(operation.model_name, operation.name)
    steps.append(ops.SeparateDatabaseAndState(state_operations=[gone]))
    action = f"ALTER TABLE {of_table(field.model._meta.db_table)}"
    column = quoted(field.column)
    drop = ops.RunSQL(
        f"{action} DROP COLUMN {column}",
        reverse_sql=f"{action} ADD COLUMN {column} {field.db_type(connection)}",
    )
    return Way(words, (Step(tuple(steps), "Now."), Step((drop,), "In the next release.")))


def _model_first(seen: Seen) -> Way:
    operation = seen.operation
    words = "Take the model out of the code now, and leave the table; drop that in the next release."
    model = seen.before(operation.name)
    keys: list[Operation] = [
        ops.AlterField(operation.name, field.name, _changed(field, db_constraint=False))
        for field in model._meta.local_fields
        if field.remote_field and field.db_constraint
    ]
    if keys:
        words += " Its foreign keys go now: else the new code could not delete what they refer to."
    state = ops.SeparateDatabaseAndState(state_operations=[ops.DeleteModel(operation.name)])
    drop = ops.RunSQL(f"DROP TABLE {of_table(model._meta.db_table)}")
    return Way(words, (Step((*keys, state), "Now."), Step((drop,), "In the next release.")))


def _with_db_default(field: Any, *, is_kept: bool) -> tuple[Any, str]:
    """Return a field that older code need not give a value for, and in words what it is."""
    value = _default(field)
    if value is ...:
        return _changed(field, "default", null=True), (
            "Let it be NULL until all code knows it, and fill the rows in batches; then comes NOT NULL."
        )
    return _changed(field, *(() if is_kept else ("default",)), db_default=value), (
        "Give it a default in the database, db_default: a default alone is known to the new code only."
    )


def _default(field: Any) -> Any:
    """Return what the database can give a field by itself; ... where only Python can."""
    if field.has_db_default():
        return field.db_default
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        return Now()
    if not field.has_default():
        return "" if field.blank and field.empty_strings_allowed else ...
    if callable(field.default):
        return {timezone.now: Now(), dict: {}, list: []}.get(field.default, ...)
    return field.default


def _as_seen(seen: Seen) -> Way:
    """Return the SQL that was seen, with what lets others work: CONCURRENTLY, USING INDEX, NOT VALID."""
    sql: list[ops.RunSQL] = []
    validated: list[Operation] = []
    is_understood = True
    for statement in seen.statements:
        if found := CREATE_INDEX.match(statement):
            sql.append(_index(found[1] or "", found[2], found[3]))
        elif found := DROP_INDEX.match(statement):
            sql.append(ops.RunSQL(f"DROP INDEX CONCURRENTLY IF EXISTS {found[1]}"))
        elif found := REINDEX.match(statement):
            sql.append(ops.RunSQL(f"REINDEX {found[1]} CONCURRENTLY {found[2]}", ops.RunSQL.noop))
        elif (found := ADD_CONSTRAINT.match(statement)) and found[4]:
            sql += _unique(found[1], found[2], f"{found[4]} {found[3] or ''}".rstrip(), found[5])
        elif found:
            sql.append(_not_valid(found[1], found[2], found[6]))
            validate = f"ALTER TABLE {found[1]} VALIDATE CONSTRAINT {found[2]}"
            validated.append(ops.RunSQL(validate, ops.RunSQL.noop))
        else:
            sql.append(ops.RunSQL(statement))
            is_understood = isinstance(seen.operation, ops.RunSQL)
    way = _while_used(sql, seen.of_models, validated)
    return way if is_understood else Way(way.instead)


def _while_used(sql: list[ops.RunSQL], of_models: list[Operation], validated: Sequence[Operation]) -> Way:
    """Return statements that let others work, the last of which brings the change of the models with it."""
    is_concurrent = any("CONCURRENTLY" in each.sql for each in sql)
    operations: list[Operation] = [*sql]
    if of_models and sql:
        operations[-1] = ops.SeparateDatabaseAndState([sql[-1]], of_models)
    words = []
    if is_concurrent:
        words.append("Build the index concurrently, in a migration of its own that is not atomic.")
    if validated:
        words.append("Add the constraint NOT VALID, and validate it in a migration of its own.")
    steps = [Step(tuple(operations), is_atomic=not is_concurrent)]
    if validated:
        steps.append(Step(tuple(validated)))
    return Way(" ".join(words), tuple(steps))


def _index(unique: str, name: str, rest: str) -> ops.RunSQL:
    return ops.RunSQL(
        f"CREATE {unique}INDEX CONCURRENTLY {name}{rest}",
        reverse_sql=f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
    )


def _unique(place: str, name: str, columns: str, rest: str = "") -> list[ops.RunSQL]:
    """Return a unique index, and what makes a constraint of it."""
    add = f"ALTER TABLE {place} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}{rest}"
    return [
        _index("UNIQUE ", name, f" ON {place} {columns}"),
        ops.RunSQL(add, reverse_sql=f"ALTER TABLE {place} DROP CONSTRAINT {name}"),
    ]


def _not_valid(place: str, name: str, rest: str) -> ops.RunSQL:
    return ops.RunSQL(
        f"ALTER TABLE {place} ADD CONSTRAINT {name} {rest} NOT VALID",
        reverse_sql=f"ALTER TABLE {place} DROP CONSTRAINT {name}",
    )


def _name(table: str, column: str, what: str) -> str:
    return truncate_name(f"{table}_{column}_{what}".replace('"', ""), NAME_BYTES)
