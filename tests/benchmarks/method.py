"""One method at one work, in a process of its own: ``python -m tests.benchmarks.method WORK METHOD``.

Prints what it measured as JSON. Only the reading or writing itself is timed; a small read before it has
paid for every import and, where a method keeps its connection, for that.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar

import django
import pandas as pd

django.setup()

from django.contrib.postgres.fields import ArrayField, BigIntegerRangeField  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402

from catalog.models import Book  # noqa: E402
from workbench.frames import frame, load  # noqa: E402

URL = os.environ["DATABASE_URL"]


class Every(models.Model):
    small = models.SmallIntegerField(null=True)
    whole = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    single = models.FloatField(null=True)
    double = models.FloatField(null=True)
    flag = models.BooleanField(null=True)
    price = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    amount = models.DecimalField(max_digits=30, decimal_places=10, null=True)
    note = models.TextField(null=True)
    code = models.CharField(max_length=40, null=True)
    raw = models.BinaryField(null=True)
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    moment = models.DateTimeField(null=True)
    instant = models.DateTimeField(null=True)
    lasting = models.DurationField(null=True)
    key = models.UUIDField(null=True)
    doc = models.JSONField(null=True)
    numbers = ArrayField(models.IntegerField(), null=True)
    span = BigIntegerRangeField(null=True)  # type: ignore[misc]

    objects: ClassVar[models.Manager[Every]] = models.Manager()

    class Meta:
        app_label = "benchmark"
        managed = False
        db_table = "benchmark_every"


QUERYSETS: dict[str, Callable[[], Any]] = {
    "books": lambda: Book.objects.values("id", "title", "author_id", "created_at"),
    "joined": lambda: Book.objects.values("id", "title", "created_at", "author__name", "author__country"),
    "every": lambda: Every.objects.values(),
    "seven": lambda: Book.objects.values("id", "title", "author_id", "created_at")[:7],
}


def sql(queryset: Any) -> str:
    statement, params = queryset.query.sql_with_params()
    with connection.cursor() as cursor:
        text: str = cursor.mogrify(statement, params).decode()
    return text


def by_values(queryset: Any) -> pd.DataFrame:
    return pd.DataFrame(queryset)


def by_read_frame(queryset: Any) -> pd.DataFrame:
    from django_pandas.io import read_frame

    found: pd.DataFrame = read_frame(queryset, verbose=False)
    return found


def by_read_sql(queryset: Any) -> pd.DataFrame:
    import sqlalchemy

    engine = sqlalchemy.create_engine(URL.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as other:
        return pd.read_sql(sqlalchemy.text(sql(queryset)), other)


def by_connectorx(queryset: Any) -> pd.DataFrame:
    import connectorx

    found: pd.DataFrame = connectorx.read_sql(URL, sql(queryset), return_type="pandas")
    return found


def by_adbc(queryset: Any) -> pd.DataFrame:
    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(URL) as other, other.cursor() as cursor:
        cursor.execute(sql(queryset))
        found: pd.DataFrame = cursor.fetch_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
        return found


READ: dict[str, Callable[[Any], Any]] = {
    "frame": frame,
    "values": by_values,
    "read_frame": by_read_frame,
    "read_sql": by_read_sql,
    "connectorx": by_connectorx,
    "adbc": by_adbc,
}


def reading(work: str, method: str) -> dict[str, float]:
    queryset = QUERYSETS[work.partition("-")[0]]()
    read = READ[method]
    read(QUERYSETS["seven"]())
    repeated = 200 if work == "seven" else 1
    with transaction.atomic() if work.endswith("-atomic") else nullcontext():
        before = memory()
        began = time.perf_counter()
        for _ in range(repeated):
            found = read(queryset.all())
        seconds = (time.perf_counter() - began) / repeated
    size = int(found.memory_usage(deep=method != "adbc").sum())
    return {"seconds": seconds, "rows": len(found), "size": size, "beyond": memory() - before - size}


def first(_: str, method: str) -> dict[str, float]:
    """The first query of a kernel that has imported what a kernel imports."""
    began = time.perf_counter()
    if method == "frame":
        frame(Book.objects.all()[:7])
    else:
        list(Book.objects.all()[:7])
    return {"seconds": time.perf_counter() - began, "rows": 7}


def chunked(work: str, _: str) -> dict[str, float]:
    rows = int(work.partition("-")[2])
    text = f"SELECT b.* FROM catalog_book b, generate_series(1, 10) LIMIT {rows}"
    frame(QUERYSETS["seven"]())
    before = memory()
    began = time.perf_counter()
    found = sum(len(chunk) for chunk in frame.chunks(text, rows=100_000))
    return {"seconds": time.perf_counter() - began, "rows": found, "beyond": memory() - before}


def growing(work: str, _: str) -> dict[str, float]:
    rows = int(work.partition("-")[2])
    text = f"SELECT b.* FROM catalog_book b, generate_series(1, 10) LIMIT {rows}"
    frame(text.replace(str(rows), "7"))
    began = time.perf_counter()
    found = len(frame(text))
    return {"seconds": time.perf_counter() - began, "rows": found}


def loading(work: str, method: str) -> dict[str, float]:
    """Write the books anew that are there, into their emptied table or beside seven that stay."""
    rows = frame(Book.objects.values("title", "author_id", "created_at").order_by("pk")[:1_000_000])
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE catalog_book RESTART IDENTITY")
    load(Book, rows[:7] if work == "load-filled" else rows[:0])
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE catalog_book")
    if method == "bulk_create":
        instances = [Book(title=t, author_id=a, created_at=c) for t, a, c in rows.itertuples(index=False)]
        began = time.perf_counter()
        Book.objects.bulk_create(instances, batch_size=10_000)
    elif method == "copy":
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            rows.to_csv(file, index=False, header=False)
            file.flush()
            copy = rf"\copy catalog_book (title, author_id, created_at) FROM {file.name} (FORMAT csv)"
            began = time.perf_counter()
            subprocess.run([*json.loads(os.environ["PSQL"]), "-c", copy], check=True)
            return {"seconds": time.perf_counter() - began, "rows": len(rows)}
    else:
        began = time.perf_counter()
        load(Book, rows)
    return {"seconds": time.perf_counter() - began, "rows": len(rows)}


def memory() -> int:
    """Return the most that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


WORKS = {"first": first, "chunks": chunked, "grow": growing, "load": loading}

if __name__ == "__main__":
    work, method = sys.argv[1:]
    print(json.dumps(WORKS.get(work.partition("-")[0], reading)(work, method)))
