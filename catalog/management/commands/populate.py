from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.migrations.loader import MigrationLoader

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
        "an author's empty country is filled in where the schema has that column."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="The alias of the database to fill.")

    def handle(self, *args: Any, database: str, **options: Any) -> None:
        if database not in connections:
            raise CommandError(f"There is no database alias {database!r}.")
        author_model, book_model = models_now(database)
        has_country = any(field.name == "country" for field in author_model._meta.get_fields())
        added_authors = added_books = filled = 0
        with transaction.atomic(using=database), connections[database].cursor() as cursor:
            # Two runs at once would each find the rows missing and add them twice.
            table = connections[database].ops.quote_name(author_model._meta.db_table)
            cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            authors = author_model._default_manager.using(database).order_by("pk")
            books = book_model._default_manager.using(database)
            for data in AUTHORS:
                country = {"country": data["country"]} if has_country else {}
                author = authors.filter(name=data["name"]).first()
                if author is None:
                    author = authors.create(name=data["name"], bio=data["bio"], **country)
                    added_authors += 1
                elif has_country and not author.country:
                    author.country = data["country"]
                    author.save(using=database, update_fields=["country"])
                    filled += 1
                there = set(books.filter(author=author).values_list("title", flat=True))
                missing = [title for title in data["books"] if title not in there]
                books.bulk_create([book_model(title=title, author=author) for title in missing])
                added_books += len(missing)
        if options["verbosity"] > 0:
            self.stdout.write(_report(added_authors, added_books, filled))


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
        raise CommandError("The catalog has no tables in this database yet: run 'migrate' first.") from None


def _report(authors: int, books: int, countries: int) -> str:
    done = []
    if authors or books:
        done.append(f"added {_count(authors, 'author')} and {_count(books, 'book')}")
    if countries:
        done.append(f"filled in the country of {_count(countries, 'author')}")
    if not done:
        total = sum(len(data["books"]) for data in AUTHORS)
        return f"Nothing to add: the {len(AUTHORS)} authors and {total} books are already there."
    return f"{' and '.join(done).capitalize()}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
