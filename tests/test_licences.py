from __future__ import annotations

import re

import pytest

from tests import licences

# Of these, a program under the MIT licence may be made and given away that imports them as they are. LGPL and
# MPL want their own files to stay free and to be exchangeable, which is so where pip installs them.
FINE = re.compile(
    r"MIT( License|-0|-CMU)?|0BSD|BSD( License|-[23]-Clause)|ISC|ISC License \(ISCL\)|Zlib|CC0-1\.0"
    r"|Apache[- ]2\.0|Apache Software License|Apache License, Version 2\.0"
    r"|PSF-2\.0|Python Software Foundation License|MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)"
    r"|GNU Library or Lesser General Public License \(LGPL\)"
)


def listed() -> list[tuple[str, str, str]]:
    lines = licences.FILE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [(name, version, licence) for name, version, licence in rows[2:]]


def unfit(licence: str) -> list[str]:
    """Return the parts of an SPDX expression by which we could not give it away, or which nobody has read."""
    choices = [choice.split(" AND ") for choice in licence.split(" OR ")]
    return min(([part for part in parts if not FINE.fullmatch(part)] for parts in choices), key=len)


def test_the_licences_of_all_that_is_installed_are_listed() -> None:
    """After a change of requirements.txt: 'make pins', or 'python -m tests.licences'."""
    assert [row[:2] for row in listed()] == [*licences.pinned()]


def test_the_licences_are_those_that_the_packages_tell() -> None:
    # Of two versions only one is installed, for which the other may not speak.
    names = [name for name, _ in licences.pinned()]
    for name, _, licence in listed():
        assert names.count(name) > 1 or licence == licences.licence(name), name


def test_no_licence_forbids_what_we_do() -> None:
    assert {name: unfit(licence) for name, _, licence in listed() if unfit(licence)} == {}


@pytest.mark.parametrize(
    "licence",
    [
        "AGPL-3.0-only",
        "GPL-3.0-or-later",
        "MIT AND GPL-2.0-only",
        "GNU General Public License v3 (GPLv3)",
        "",
        "UNKNOWN",
    ],
)
def test_a_licence_that_does_is_found(licence: str) -> None:
    assert unfit(licence)
    assert not unfit(f"{licence} OR MIT")
