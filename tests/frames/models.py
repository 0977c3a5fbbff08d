"""Models of no app: their tables are there while this folder's tests run."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField, BigIntegerRangeField
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.test.utils import isolate_apps


class ShoutField(models.CharField):  # type: ignore[type-arg]
    """Loud in Python, quiet in the database, where NULL stands for "NOTHING"."""

    def from_db_value(self, value: str | None, *_: object) -> str:
        return "NOTHING" if value is None else value.upper()

    def get_prep_value(self, value: Any) -> Any:
        return None if value in (None, "NOTHING") else value.lower()


class Grade(models.IntegerChoices):
    HIGH = 2
    LOW = 1
    NONE = 0


STATES = {"open": {"new": "New", "old": "Old"}, "gone": "Gone"}

with isolate_apps("tests.frames"):

    class Model(models.Model):
        objects: ClassVar[models.Manager[Any]] = models.Manager()

        class Meta:
            abstract = True
            app_label = "frames"

    class Shelf(Model):
        name = models.CharField(max_length=20, unique=True)

    class Item(Model):
        shelf = models.ForeignKey(Shelf, models.CASCADE)
        title = models.CharField(max_length=10, db_column="Title, of it", db_index=True)
        grade = models.SmallIntegerField(choices=Grade, default=Grade.LOW, null=True)
        state = models.CharField(
            max_length=10, choices={"open": {"new": "New", "old": "Old"}, "gone": "Gone"}
        )
        count = models.IntegerField(default=7)
        price = models.DecimalField(max_digits=7, decimal_places=2, null=True)
        weight = models.FloatField(null=True)
        shout = ShoutField(max_length=20, null=True)
        data = models.JSONField(null=True)
        token = models.UUIDField(default=uuid.uuid4)
        added = models.DateTimeField(auto_now_add=True)
        changed = models.DateTimeField(auto_now=True)
        colour = models.CharField(max_length=10, db_default="red")
        double = models.GeneratedField(
            expression=models.F("count") * 2, output_field=models.IntegerField(), db_persist=True
        )

        class Meta(Model.Meta):
            indexes = [models.Index("count", name="frames_count", condition=models.Q(count__gt=3))]
            constraints = [
                models.CheckConstraint(name="frames_not_negative", condition=models.Q(count__gte=0)),
                models.UniqueConstraint(name="frames_once", fields=["shelf", "title"]),
            ]

    class ProxyItem(Item):
        class Meta:
            app_label = "frames"
            proxy = True

    class Special(Item):
        extra = models.TextField()

        class Meta:
            app_label = "frames"

    class Pair(Model):
        pk = models.CompositePrimaryKey("left", "right")
        left = models.IntegerField()
        right = models.CharField(max_length=5)
        note = models.TextField()

    class Everything(Model):
        big = models.BigIntegerField(null=True)
        small = models.SmallIntegerField(null=True)
        whole = models.PositiveIntegerField(null=True)
        real = models.FloatField(null=True)
        decimal = models.DecimalField(max_digits=38, decimal_places=10, null=True)
        flag = models.BooleanField(null=True)
        char = models.CharField(max_length=50, null=True)
        text = models.TextField(null=True)
        raw = models.BinaryField(null=True)
        date = models.DateField(null=True)
        time = models.TimeField(null=True)
        moment = models.DateTimeField(null=True)
        duration = models.DurationField(null=True)
        uuid = models.UUIDField(null=True)
        json = models.JSONField(null=True)
        encoded = models.JSONField(null=True, encoder=DjangoJSONEncoder)
        address = models.GenericIPAddressField(null=True)
        numbers = ArrayField(models.IntegerField(null=True), null=True)
        words = ArrayField(models.TextField(null=True), null=True)
        moments = ArrayField(models.DateTimeField(), null=True)
        span = BigIntegerRangeField(null=True)  # type: ignore[misc]
        shout = ShoutField(max_length=50, null=True)


TABLES: tuple[type[models.Model], ...] = (Shelf, Item, Special, Pair, Everything)
