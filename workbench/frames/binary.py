"""Rows of Postgres' binary formats, many at a time.

A row is a header, then each field's length (-1 for NULL) and its bytes, all big-endian and unaligned
(https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4). numpy reads a field of all rows in
one step, through views of the bytes that overlap at every offset.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import groupby, repeat
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LENGTH: Final = np.dtype(">i4")  # -1 for NULL
HEADER_SIZE: Final = 19  # a signature, flags, and the length of an extension that no server sends
TRAILER: Final = b"\xff\xff"

LONGEST_BATCH = 16 * 1024
FIRST_BATCH = 64


class Layout(NamedTuple):
    """How many bytes come before a row's first field, and before each field's value."""

    row: int
    field: int


COPY: Final = Layout(row=2, field=4)  # a count of fields; a length
RECORD: Final = Layout(row=4, field=8)  # record_send's: the same, and each field's type before its length


class Fixed(NamedTuple):
    """A field of all rows whose values have one width: ``values`` is an array of ``wire`` items."""

    values: npt.NDArray[Any]
    nulls: Mask | None


class Varying(NamedTuple):
    """A field of all rows whose values are ``data[start:end]``; both are the same for a NULL."""

    data: pa.Buffer
    starts: Positions
    ends: Positions
    nulls: Mask | None


class Reader:
    """Reads the fields of rows, column by column.

    ``wires`` names the columns' items as numpy does (``">i8"``), None where the width varies.
    """

    def __init__(self, wires: Sequence[str | None], layout: Layout) -> None:
        self._layout = layout
        self.bytes = 0  # read so far
        items = [None if wire is None else np.dtype(wire) for wire in wires]
        # The last row may end before a view of its width does, or one that a decoder takes of a value.
        self._padding = bytes(sum(layout.field + (item.itemsize if item else 32) for item in items))
        # Neighbours of fixed width without NULLs lie equally in every row, so one step reads them all.
        self._runs = [list(run) for _, run in groupby(enumerate(items), key=lambda column: column[1] is None)]
        self._blocks = [self._block(run) for run in self._runs]

    def _block(self, run: list[tuple[int, np.dtype[Any] | None]]) -> np.dtype[Any] | None:
        names, formats, offsets, size = [], [], [], 0
        for number, item in run:
            if item is None:
                return None
            names += [f"length{number}", f"value{number}"]
            formats += [LENGTH, item]
            offsets += [size + self._layout.field - LENGTH.itemsize, size + self._layout.field]
            size += self._layout.field + item.itemsize
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})

    def fields(self, rows: list[bytes]) -> Iterator[tuple[int, Fixed | Varying]]:
        """Yield each column's number and what ``rows``, which are used up, hold of it, in order."""
        rows.append(self._padding)
        # Arrow is the quickest to join them and to know their lengths.
        _, offsets, data = pa.array(rows, pa.large_binary()).buffers()
        self.bytes += data.size
        positions = np.frombuffer(offsets, np.int64, len(rows) - 1) + self._layout.row
        for run, block in zip(self._runs, self._blocks, strict=True):
            if block is not None:
                found = at(data, positions, block)
                if all((found[f"length{number}"] == item.itemsize).all() for number, item in run if item):
                    positions += block.itemsize
                    yield from ((number, Fixed(found[f"value{number}"], None)) for number, _ in run)
                    continue
            for number, item in run:
                lengths, nulls = self._lengths(data, positions)
                positions += self._layout.field
                if item is None:
                    ends = positions + lengths
                    yield number, Varying(data, positions, ends, nulls)
                    positions = ends.copy()
                else:
                    values = at(data, positions, item)
                    if nulls is not None:
                        values[nulls] = np.zeros((), item)
                    yield number, Fixed(values, nulls)
                    positions += lengths

    def _lengths(self, data: pa.Buffer, positions: Positions) -> tuple[Positions, Mask | None]:
        lengths = at(data, positions + (self._layout.field - LENGTH.itemsize), LENGTH).astype(np.int64)
        if lengths.min() >= 0:
            return lengths, None
        nulls = lengths < 0
        lengths[nulls] = 0
        return lengths, nulls


def at(data: pa.Buffer, positions: Positions, items: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a copy of the items that begin at ``positions``, which may lie a little behind a value's end."""
    size = items.itemsize
    every: npt.NDArray[Any] = np.ndarray(data.size - size + 1, f"V{size}", data, strides=(1,))
    return every[positions].view(items)


def next_size(rows: Sequence[bytes], bytes_: int) -> int:
    """Return how many rows like ``rows`` make a batch of about ``bytes_``, growing slowly."""
    fitting = bytes_ * len(rows) // sum(map(len, rows))
    return max(1, min(fitting, 2 * len(rows), LONGEST_BATCH))


class Receiver:
    """The file that ``copy_expert`` writes to: takes a row at a time and passes them on in batches.

    A generator is the cheapest thing to call a million times from C that runs Python in between: for the
    batches, and for a KeyboardInterrupt.
    """

    def __init__(self, take: Callable[[list[bytes]], None], batch_bytes: int) -> None:
        self._take = take
        self._batch_bytes = batch_bytes
        self._rows: list[bytes] = []
        batches = self._batches()
        next(batches)
        self.write = batches.send

    def _batches(self) -> Generator[None, bytes]:
        # The signature comes with the first row, or with the trailer if there is none.
        first = (yield)[HEADER_SIZE:]
        self._rows.append(first)
        size = max(1, min(FIRST_BATCH, self._batch_bytes // (len(first) or 1)))
        while True:
            append = self._rows.append
            for _ in repeat(None, size):
                append((yield))
            last = self._rows.pop()
            size = next_size(self._rows, self._batch_bytes)
            self._take(self._rows)
            self._rows = [last]

    def finish(self) -> None:
        """Pass on what is left, once all is written."""
        if self._rows.pop() != TRAILER:
            raise AssertionError("COPY ended without its trailer")
        if self._rows:
            self._take(self._rows)
