"""Texts as others write them: Python, JSON, HTML, SQL, a shell, an address, a highlighter."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import quote

# What highlighters put between the parts of a text.
COLOURS = r"(?:\x1b\[[\d;]*m|</?span[^>]*>)*"
ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
# What a quote is doubled to within quotes; a shell goes out of them.
DOUBLED = {"'": r"''|'\"'\"'|'\\+''", '"': r'""'}
# Of a character that is written as several, the first of them.
PARTLY = r"(?:[\\%&'\"\x1b]\S{0,12}|<[^<>]*)?"


def pattern(text: str) -> str:
    """Return a regular expression that finds a text however it is written; letters and digits are themselves.

    Example::

        re.search(pattern("a&b"), "<p>a&amp;b</p>")
    """
    return "".join(map(_one, text))


def beginning(text: str, least: int, end: str) -> str:
    r"""Return one that finds where a text breaks off, after at least so many characters of it.

    ``end`` is an assertion about the place, ``\Z`` or ``(?=...)``.

    Example::

        re.search(beginning("a&bcd", 2, r"\Z"), "a&amp;b")
    """
    # Once it is there, it is there for all that would follow.
    rest = "".join(f"(?:{_one(character)}|{PARTLY}{end})" for character in text[least:-1])
    return f"{pattern(text[:least])}{rest}{PARTLY}{end}"


def ending(text: str, least: int, begin: str) -> str:
    """Return one that finds how a text goes on, with at least so many of its last characters.

    ``begin`` is an assertion about the place, as ``(?<=...)``.
    """
    before = "".join(f"(?:{_one(character)}|{begin})" for character in text[1:-least])
    return f"{begin}{before}{pattern(text[-least:])}"


@cache
def _one(character: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9]", character):
        return character
    code = ord(character)
    utf8 = character.encode("utf-8", "surrogatepass")
    percent = "".join(f"%{byte:02x}" for byte in utf8)
    escaped = "".join(rf"\\+x{byte:02x}" for byte in utf8)
    units = character.encode("utf-16-be", "surrogatepass").hex()
    utf16 = "".join(rf"\\+u{units[place : place + 4]}" for place in range(0, len(units), 4))
    ways = [
        re.escape(character),
        f"(?i:{re.escape(percent)})",
        f"(?i:{re.escape(quote(percent, safe=''))})",
        f"(?i:{utf16})",
        f"(?i:{escaped})",
        rf"(?i:\\+x{code:02x})" if code < 256 else rf"(?i:\\+U{code:08x})",
        rf"&#(?:{code}|[xX]0*(?i:{code:x}));",
        *([f"&{ENTITIES[character]};"] if character in ENTITIES else []),
        *([rf"\\+{ESCAPES[character]}"] if character in ESCAPES else []),
        *([DOUBLED[character]] if character in DOUBLED else []),
        *([r"\+"] if character == " " else []),
    ]
    longest_first = sorted(ways, key=len, reverse=True)
    return rf"{COLOURS}\\*(?:{'|'.join(longest_first)}){COLOURS}"
