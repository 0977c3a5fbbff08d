"""Authors and books made up by the thousand, the same for the same seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

FIRST_NAMES = """
Ada Amara Anton Beatriz Chidi Clara Dmitri Elena Farid Freya Goran Hana Ingrid Ivo Jamal June Kofi Lars Leila
Mateo Mei Nadia Noor Olga Oscar Priya Rosa Samir Sofia Tariq Uma Viktor Wanda Yara Yusuf Zoe
""".split()
LAST_NAMES = """
Abara Almeida Bauer Blanc Castillo Chen Dahl Diaz Eriksen Fontaine Garcia Haddad Hoffmann Ito Jansen Kaya
Keller Kim Larsen Lopez Mbeki Moreau Nakamura Novak Okafor Olsen Patel Petrov Quinn Rossi Sato Silva Singh
Tanaka Torres Usman Vargas Weber Yilmaz Zhang
""".split()
TOPICS = ["birds", "exile", "families", "machines", "mountains", "music", "old maps", "the sea", "the war"]
# The first are the most frequent.
COUNTRIES = (
    "United States,United Kingdom,France,Germany,Japan,India,Brazil,Nigeria,Spain,Italy,Russia,China,Turkey,"
    "Mexico,South Korea,Sweden,Poland,Egypt,Argentina,Kenya,Norway,Ghana,Iceland"
).split(",")
ADJECTIVES = """
Burning Distant Empty Endless Forgotten Golden Hidden Last Lost Quiet Red Silent Slow Stolen
""".split()
NOUNS = """
Bridge Cartographer Clock Daughter Garden Island Letter Library Orchard River Road Shadow Tower
""".split()
PLACES = """
Ashes Autumn Glass Iron Kyoto Lagos Lisbon Midnight Oaxaca Salt Samarkand Snow Tangier Winter
""".split()

BEGINNING = np.datetime64("2000-01-01", "us")
END = np.datetime64("2025-01-01", "us")


def authors(start: int, stop: int, seed: int) -> pd.DataFrame:
    """Return the authors numbered from ``start`` to ``stop``: name, bio, country, created_at.

    One in twenty has no country.
    """
    dice = _Dice("authors", start, stop, seed)
    country = _pick(dice.throw() ** 2, COUNTRIES)
    country[dice.throw() < 0.05] = ""
    return pd.DataFrame(
        {
            "name": _pick(dice.throw(), FIRST_NAMES) + " " + _pick(dice.throw(), LAST_NAMES),
            "bio": "Writes about " + _pick(dice.throw(), TOPICS) + ".",
            "country": country,
            "created_at": _times(dice.throw()),
        }
    )


def books(start: int, stop: int, seed: int, author_ids: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return the books numbered from ``start`` to ``stop``: title, author_id, created_at.

    The first of ``author_ids`` write more than the last, and there are more books from year to year.
    """
    dice = _Dice("books", start, stop, seed)
    title = "The " + _pick(dice.throw(), ADJECTIVES) + " " + _pick(dice.throw(), NOUNS)
    return pd.DataFrame(
        {
            "title": title + " of " + _pick(dice.throw(), PLACES),
            "author_id": author_ids[(dice.throw() ** 3 * len(author_ids)).astype(int)],
            "created_at": _times(dice.throw() ** 0.5),
        }
    )


class _Dice:
    """Throws the numbers of rows ``start`` to ``stop``, which are the same however many rows there are."""

    def __init__(self, kind: str, start: int, stop: int, seed: int) -> None:
        self._entropy = [seed, *kind.encode()]
        self._start, self._stop = start, stop
        self._throws = 0

    def throw(self) -> npt.NDArray[np.float64]:
        self._throws += 1
        generator = np.random.Generator(np.random.PCG64([*self._entropy, self._throws]))
        return generator.random(self._stop)[self._start :]


def _pick(numbers: npt.NDArray[np.float64], words: list[str]) -> npt.NDArray[np.object_]:
    picked: npt.NDArray[np.object_] = np.array(words, dtype=object)[(numbers * len(words)).astype(int)]
    return picked


def _times(numbers: npt.NDArray[np.float64]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(BEGINNING + numbers * (END - BEGINNING)).tz_localize("UTC")
