"""Rows of raw values as examples of a dataset that stands already, without writing them, as for a prediction."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umemma_jax.data.info import Info
from umemma_jax.data.kinds import Modality
from umemma_jax.data_prep.build.assemble import content_of
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.results import Failure
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row, meant
from umemma_jax.data_prep.build.tasks import attempt
from umemma_jax.data_prep.raw.columns import NO_FILE, Column, Settings, Source, read_once, sources
from umemma_jax.errors import UserError

# Of datasets that were made by other preparations than data_prep.table.
SIZE, RATE, FPS, SECONDS = 256, 16000, 1.0, 10


class RowReader:
    """Reads rows as the dataset's own were: from the same columns, by the same conversions, with the same levels.

    Attributes:
      columns: modality -> the columns of a table that it comes from. Where the dataset was made of no table, the column
        is called as the modality.
    """

    def __init__(self, info: Info, modalities: Sequence[str] | None = None) -> None:
        """Takes what a dataset says of itself, and which of its modalities are wanted; None: all."""
        self._trained = {name: info.modalities[name] for name in modalities or info.modalities}
        self._made_by = info.source
        recorded = {column.name: column for column in _recorded(info.source)}
        self._found = [recorded.get(name) or _likely(name, modality) for name, modality in self._trained.items()]
        self._sources = functools.lru_cache(maxsize=8)(self._of_folder)
        self.columns = {column.name: column.columns for column in self._found}

    def notes(self, columns: Sequence[str], all_lacking: bool = True) -> list[str]:
        """What a table with these columns lacks, a line each.

        Args:
          columns: of the table.
          all_lacking: whether that is told of every column, or only where another one is called nearly alike.

        Raises:
          UserError: it lacks all.
        """
        wanted = list(dict.fromkeys(column for of_modality in self.columns.values() for column in of_modality))
        lacking = [column for column in wanted if column not in columns]
        hints = {column: meant(column, [name for name in columns if name not in wanted]) for column in lacking}
        if len(lacking) == len(wanted):
            raise UserError(
                f"no column that the model knows, which are {', '.join(wanted)}; there are: {', '.join(columns)}"
                f"{max(hints.values(), key=len)}"
            )
        return [
            f"no column {column!r}{hint}: its values count as missing"
            for column, hint in hints.items()
            if hint or all_lacking
        ]

    def read(
        self, row: Row, folder: Path = Path(), report: Report | None = None, skip_unreadable: bool = False
    ) -> dict[str, Any]:
        """The values of a row, by modality, as `DatasetWriter.write` takes them; without what the row lacks.

        Args:
          row: with any columns.
          folder: that paths count from.
          report: gets what is damaged or skipped, what a vector lacks, and categories that training does not have.
          skip_unreadable: whether a file that does not exist or cannot be read counts as missing.

        Raises:
          UserError: a value is not of its column's type, or a file does not exist or cannot be read.
        """
        report = report or Report()
        absent = report.count(NO_FILE)
        values = read_once({name: source.take(row, report) for name, source in self._sources(folder).items()})
        if report.count(NO_FILE) > absent and not skip_unreadable:
            raise UserError(f"{row.where}: file does not exist: {report.entries(NO_FILE)[-1]}")
        found = {}
        for name, value in values.items():
            if value is None:
                continue
            read = _run(value, row, report, skip_unreadable) if callable(value) else value
            found |= read if isinstance(read, dict) else {name: read}
        return found

    def _of_folder(self, folder: Path) -> dict[str, Source]:
        made = (sources([column], [], self._settings(column, folder), self._trained) for column in self._found)
        return {name: source for source_of in made for name, source in source_of.items()}

    def _settings(self, column: Column, folder: Path) -> Settings:
        modality, made_by = self._trained[column.name], self._made_by
        return Settings(
            folder,
            made_by.get("size", SIZE),
            modality.sample_rate or RATE,
            modality.frame_rate or FPS,
            made_by.get("seconds", SECONDS),
            tuple(made_by.get("na_values", MISSING_MARKS)),
            made_by.get("max_pixels"),
        )


def _run(task: Any, row: Row, report: Report, skip_unreadable: bool) -> Any:
    result = attempt(task)
    if isinstance(result, Failure) and not skip_unreadable:
        place = str(task) if str(task).startswith(row.where) else f"{row.where}: {task}"
        raise UserError(f"{place}: {result.reason}")
    content = content_of(task, result, report)
    return {} if content is None else task.value(content)


def _recorded(made_by: Mapping[str, Any]) -> list[Column]:
    """The columns that a dataset was made of, as far as the command that made it was given columns."""
    given = made_by.get("modalities")
    records = [record for record in given if isinstance(record, Mapping)] if isinstance(given, list) else []
    return [
        Column(x["kind"], x["name"], tuple(x["columns"]), x.get("types") or {}, x.get("strays") or {}) for x in records
    ]


def _likely(name: str, modality: Modality) -> Column:
    types = dict.fromkeys(modality.levels or (), "category")
    return Column(modality.kind, name, modality.columns or (name,), types)
