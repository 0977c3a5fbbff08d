from __future__ import annotations

from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.migrations.loader import MigrationLoader

from catalog import examples
from workbench.errors import command
from workbench.frames import load

AUTHORS = [
    {
        "name": "J.R.R. Tolkien",
        "bio": "The creator of Middle-earth and author of The Lord of the Rings.",
        "country": "United Kingdom",
        "books": ["The Fellowship of the Ring", "The Two Towers", "The Return of the King"],
    },
    {
        "name": "George R.R. Martin",
        "bio": "The author of the epic fantasy series A Song of Ice and Fire.",
        "country": "United States",
        "books": ["A Game of Thrones", "A Clash of Kings"],
    },
    {
        "name": "J.K. Rowling",
        "bio": "The creator of the Harry Potter series.",
        "country": "United Kingdom",
        "books": [
            "Harry Potter and the Philosopher's Stone",
            "Harry Potter and the Chamber of Secrets",
        ],
    },
]


class Command(BaseCommand):
    help = (
        "Adds three authors and their seven books. What is already there is left alone; "
        "an author's empty country is filled in where the schema has that column. "
        "With --authors and --books it adds as many made-up ones as make so many in all."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="The alias of the database to fill.")
        parser.add_argument("--authors", type=int, default=0, help="How many authors there should be in all.")
        parser.add_argument("--books", type=int, default=0, help="How many books there should be in all.")
        parser.add_argument("--seed", type=int, default=1, help="The same number makes up the same rows.")

    def handle(self, *args: Any, database: str, authors: int, books: int, seed: int, **options: Any) -> None:
        if database not in connections:
            raise CommandError(f"There is no database alias {database!r}.")
        if min(authors, books, seed) < 0:
            raise CommandError("--authors, --books and --seed are 0 or more.")
        catalog = Catalog(database)
        with transaction.atomic(using=database):
            catalog.lock()
            catalog.add_the_three()
            catalog.make_up(authors, books, seed)
            said = catalog.report()
        if options["verbosity"] > 0:
            self.stdout.write(said)


class Catalog:
    """The tables of one database, and what was added to them."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.author_model, self.book_model = models_now(database)
        self.authors = self.author_model._default_manager.using(database).order_by("pk")
        self.books = self.book_model._default_manager.using(database)
        self.has_country = any(field.name == "country" for field in self.author_model._meta.get_fields())
        self.added_authors = self.added_books = self.filled = 0

    def lock(self) -> None:
        """Let nobody else add rows: two runs at once would each find them missing and add them twice."""
        with connections[self.database].cursor() as cursor:
            cursor.execute(f"LOCK TABLE {self._quoted(self.author_model)} IN SHARE ROW EXCLUSIVE MODE")

    def add_the_three(self) -> None:
        for data in AUTHORS:
            country = {"country": data["country"]} if self.has_country else {}
            author = self.authors.filter(name=data["name"]).first()
            if author is None:
                author = self.authors.create(name=data["name"], bio=data["bio"], **country)
                self.added_authors += 1
            elif self.has_country and not author.country:
                author.country = data["country"]
                author.save(using=self.database, update_fields=["country"])
                self.filled += 1
            there = set(self.books.filter(author=author).values_list("title", flat=True))
            missing = [title for title in data["books"] if title not in there]
            self.books.bulk_create([self.book_model(title=title, author=author) for title in missing])
            self.added_books += len(missing)

    def make_up(self, authors: int, books: int, seed: int) -> None:
        """Add made-up authors and books until there are so many."""
        there = self.authors.count()
        if authors > there:
            rows = examples.authors(there, authors, seed)
            rows = rows if self.has_country else rows.drop(columns="country")
            self.added_authors += load(self.author_model, rows, using=self.database)
        there = self.books.count()
        if books > there:
            author_ids = np.fromiter(self.authors.values_list("pk", flat=True), np.int64)
            rows = examples.books(there, books, seed, author_ids)
            self.added_books += load(self.book_model, rows, using=self.database)
            # The planner should know of them now, not when the server gets round to it.
            with connections[self.database].cursor() as cursor:
                cursor.execute(f"ANALYZE {self._quoted(self.author_model)}, {self._quoted(self.book_model)}")

    def report(self) -> str:
        done = []
        if self.added_authors or self.added_books:
            done.append(
                f"added {_count(self.added_authors, 'author')} and {_count(self.added_books, 'book')}"
            )
        if self.filled:
            done.append(f"filled in the country of {_count(self.filled, 'author')}")
        if done:
            return f"{' and '.join(done).capitalize()}."
        there = f"{_count(self.authors.count(), 'author')} and {_count(self.books.count(), 'book')}"
        return f"Nothing to add: the {there} are already there."

    def _quoted(self, model: Any) -> str:
        return connections[self.database].ops.quote_name(model._meta.db_table)


def models_now(database: str) -> tuple[Any, Any]:
    """Author and Book as the migrations applied to ``database`` left them.

    Raises CommandError if their tables have not been made yet.
    """
    loader = MigrationLoader(connections[database])
    applied = [node for node in loader.applied_migrations if node in loader.graph.nodes]
    try:
        catalog = loader.project_state(applied).apps.get_app_config("catalog")
        return catalog.get_model("Author"), catalog.get_model("Book")
    except LookupError:
        raise CommandError(
            f"The catalog has no tables in this database yet: {command('migrate')} makes them."
        ) from None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
