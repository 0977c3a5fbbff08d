"""What a block of code asked of the database, and what there is to say about it."""

from workbench.queries.asked import Asked, queries

__all__ = ["Asked", "queries"]
