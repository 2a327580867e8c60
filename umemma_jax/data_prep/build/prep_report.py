"""What a preparation met in the raw data and what it made of it: counted, listed, written beside the data."""

import json
import os
from collections import Counter
from pathlib import Path

from umemma_jax.errors import UserError

FILE_NAME = "prep_report.json"
UNREADABLE = "unreadable file (left out)"
DAMAGED = "damaged file (what is readable is kept)"
PRINTED = 20  # kinds of problems
LISTED = 10_000  # most entries that are listed of one kind of problem; all are counted


class Report:
    """Collects problems by kind."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._problems: dict[str, list[str]] = {}  # the first ones of each kind

    def add(self, kind: str, entry: str) -> None:
        """Notes a problem.

        Args:
          kind: a short phrase that names the problem and its consequence, e.g. "row without image (kept, text only)".
          entry: id or file, and the reason where there is one.
        """
        printable = entry.encode(errors="backslashreplace").decode()  # names of files can be any bytes
        self._counts[kind] += 1
        if self._counts[kind] <= LISTED:
            self._problems.setdefault(kind, []).append(printable)

    def count(self, kind: str) -> int:
        """How many problems of a kind there were."""
        return self._counts[kind]

    def entries(self, kind: str) -> list[str]:
        """The first problems of a kind."""
        return self._problems.get(kind, [])

    def write(self, folder: Path) -> Path:
        """Writes the report into a folder, by rename; returns its path."""
        path = folder / FILE_NAME
        partial = path.with_name(f"{FILE_NAME}.partial")
        try:
            partial.write_bytes(self.encoded())
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}): make room, then run again") from error
        return path

    def print_summary(self, path: Path) -> None:
        """Prints where the report is, and one line for each of the first kinds of problems."""
        print(f"report: {path}")
        self.print_kinds()

    def print_kinds(self) -> None:
        """Prints one line for each of the first kinds of problems."""
        for kind, entries in list(self._problems.items())[:PRINTED]:
            print(f"  {self._counts[kind]} x {kind}, e.g. {entries[0]}")
        if len(self._problems) > PRINTED:
            print(f"  and {len(self._problems) - PRINTED} more kinds")

    def encoded(self) -> bytes:
        """The report's file."""
        shown = {kind: {"count": self._counts[kind], "entries": entries} for kind, entries in self._problems.items()}
        return (json.dumps(shown, indent=2, ensure_ascii=False) + "\n").encode()
