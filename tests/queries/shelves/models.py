"""Models of an app that is installed while this folder's tests run: every kind of relation there is."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Model(models.Model):
    objects: ClassVar[models.Manager[Any]] = models.Manager()

    class Meta:
        abstract = True
        app_label = "shelves"


class Publisher(Model):
    name = models.CharField(max_length=50)


class Writer(Model):
    name = models.CharField(max_length=50)
    bio = models.TextField(default="")
    publisher = models.ForeignKey(
        Publisher, models.CASCADE, related_name="writers", related_query_name="writer"
    )

    @property
    def house(self) -> str:
        return str(self.publisher.name)


class Shelf(Model):
    name = models.CharField(max_length=50)


class Tag(Model):
    name = models.CharField(max_length=50)
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.BigIntegerField()
    target = GenericForeignKey()


class Novel(Model):
    title = models.CharField(max_length=50)
    price = models.IntegerField(default=1)
    writer = models.ForeignKey(Writer, models.CASCADE)
    shelves = models.ManyToManyField(Shelf, related_name="books")
    tags = GenericRelation(Tag)


class Cover(Model):
    novel = models.OneToOneField(Novel, models.CASCADE, related_name="jacket")
    picture = models.BinaryField(default=b"")


TABLES: tuple[type[models.Model], ...] = (Publisher, Writer, Shelf, Tag, Novel, Cover)
