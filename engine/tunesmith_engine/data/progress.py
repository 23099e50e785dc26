"""Report that rows are being prepared, if that takes long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator

from tunesmith.files.row import Row
from tunesmith.redact import redact
from tunesmith_engine.data.suspicious import strings

SECONDS = 5.0
"""Time between two lines."""
LARGE = 10_000_000
"""Characters of a row that is large enough to take seconds by itself."""


class Progress:
    """The rows of an entry that were read so far, for a line every few seconds. `name` is that of the entry."""

    def __init__(self, name: str):
        self.name, self.read, self.started = name, 0, time.monotonic()
        self.row: Row | None = None
        self.large = ""
        """The last large row and its size."""

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, and count them."""
        for row in rows:
            self.read, self.row = self.read + 1, row
            if (size := sum(map(len, strings(row)))) > LARGE:
                self.large = f"; {row.where} has {size / 1e6:,.0f} million characters"
            yield row

    def line(self) -> str:
        """Return the line to print: the number of rows, the time, the last row, and the last large one."""
        seconds, row = time.monotonic() - self.started, self.row
        text = f"preparing {self.name}: {self.read:,} rows in {seconds:.0f} s"
        if row is None:
            return text
        return f"{text}; last read: {row.where}{self.large}"

    @contextlib.contextmanager
    def shown(self, stuck: bool = False) -> Iterator[None]:
        """Print a line to stderr every SECONDS within the block; with `stuck`, only while no row is read.

        A thread prints, since one row of 60 MB takes a minute in the tokenizer, which releases the GIL.
        """
        done = threading.Event()

        def show() -> None:
            before = -1
            while not done.wait(SECONDS):
                before, moved = self.read, self.read != before
                if stuck and moved:
                    continue
                print(redact(self.line()), file=sys.stderr, flush=True)

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
