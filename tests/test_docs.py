"""What the documents say is what there is."""

from __future__ import annotations

import re

import pytest
from django.core.management import get_commands

from tests.throwaway import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (PROJECT / ".env.example").read_text(encoding="utf-8")
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")

CODE = "".join(
    path.read_text(encoding="utf-8")
    for folder in ("workbench", "catalog")
    for path in (PROJECT / folder).rglob("*.py")
)
VARIABLES = sorted(
    set(re.findall(r"\b(?:DATABASE_URL|POSTGRES_URL|NEON|WORKBENCH|DJANGO)(?:_[A-Z]+)+\b|DATABASE_URL", CODE))
)
INTERNAL = {"DJANGO_ALLOW_ASYNC_UNSAFE", "DJANGO_SETTINGS_MODULE"}


@pytest.mark.parametrize("variable", [name for name in VARIABLES if name not in INTERNAL])
def test_every_variable_is_in_the_example_and_in_the_readme(variable: str) -> None:
    assert variable in EXAMPLE
    assert f"`{variable}`" in README


def test_every_command_of_ours_is_in_the_readme() -> None:
    ours = [name for name, app in get_commands().items() if app in ("workbench", "catalog")]
    assert [name for name in ours if f"`{name}" not in README] == []


def test_every_lesson_is_in_the_readme_in_its_order() -> None:
    lessons = [path.name for path in sorted((PROJECT / "notebooks").glob("*.ipynb"))]
    assert re.findall(r"\(notebooks/([^)]+)\)", README) == lessons


def test_every_file_and_target_that_the_readme_names_is_there() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (PROJECT / link).exists(), link
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_every_version_is_pinned() -> None:
    files = [PROJECT / "requirements.txt", *(PROJECT / "tests").rglob("requirements*.txt")]
    assert len(files) == 5
    for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
        assert re.match(r"[a-z0-9.-]+==\S+", line), line
