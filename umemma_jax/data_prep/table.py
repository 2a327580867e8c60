"""Your own data: a table of image, video and sound files, texts, numbers and labels, any of them empty.

python -m data_prep.table --table=DATA.csv --label=category --out=DIR
python -m data_prep.table --table=DATA.csv --image=photo --text=title --label=category --out=DIR
python -m data_prep.table --table=DATA.csv --video=clip --audio=clip --label=category --out=DIR
python -m data_prep.table --table=NEW.csv --image=photo --text=title --out=DIR

The table is CSV or TSV with a header, JSON lines, or Parquet. What its columns hold is inferred and printed, with the
reason (the rules: `raw/column_types.py`): numbers, categories and dates make one modality, each text, image,
sound or video one of its own. --type=COLUMN=TYPE says otherwise, --leave-out=COLUMN,... leaves columns out.

Or you say what to take, and all else is left out: each of --image, --video, --audio, --text and --tabular
names a column and makes a modality, which is called as its kind, or NAME with --image=NAME=COLUMN. Paths count from
the table's folder. An empty field is a missing modality; so is a file that does not exist or cannot be read, which is
listed in `prep_report.json` beside the data. Rows without label are dropped, and listed.

--tabular takes several columns with commas between them, or patterns of their names, each with its type unless it is
of numbers: --tabular=size=weight,lab_*,colour:category,made:date. Levels of a category that no training row has are
kept as unseen; a date is the year and the turns of year, week and day. What is read as a number or date, and what is
refused, is said in `umemma_jax/data_prep/raw/numbers.py` and `dates.py`.

Videos and sound are whatever FFmpeg reads; --audio takes the sound of videos too. Of both the first --seconds count. A
video that --video and --audio name is read once, and may lack either.

A list of labels in JSON lines or Parquet makes the whole dataset multi-label. So do several labels in one field,
separated by what --label-separator says; a field with `|` in it wants that said, '' if it is one label. Numbers of more
than 20 different values are no classes but a target of regression, and so are several columns, --label=A,B; --target
says it otherwise. NA, N/A, NaN, None, NULL and ?, in upper or lower case, are no labels and no numbers, or what
--na-values lists instead. A number that is missing is kept as such: of a row with several the others count.

--split names the column with train, val or test, or gives the shares to draw, as in 0.8,0.1,0.1; or each split has a
table of its own, --train=A.csv --validation=B.csv --test=C.csv. --groups names a column whose values never cross
splits, such as a patient's number. --folds=5 makes five datasets for cross-validation, OUT/fold0 ..., each of which is
tested on another fifth (`main.py --mode=folds`). A class that training would never see ends the preparation, unless
--drop-unseen leaves its examples out. --weight names a column of numbers from 0 on, by which examples count in
training; validation and test count all examples the same.

Without --label the dataset has no labels: a trained model can predict them, but nothing can be trained on it or
measured. All rows are then of the split `test`, unless --split names a column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.assemble import check_ids, unlabelled, write_dataset
from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.build.labelling import ClassLabels, Labelling, TargetLabels, Unlabelled, label_columns
from umemma_jax.data_prep.build.labels import read_labels
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row, Table, check_columns, read_rows, text_of
from umemma_jax.data_prep.build.splits import SPLITS
from umemma_jax.data_prep.build.splitting import Splitting, add_split_arguments, shares_of
from umemma_jax.data_prep.build.targets import CLASSES, NUMBERS, is_regression, read_targets
from umemma_jax.data_prep.raw import column_types, grouping
from umemma_jax.data_prep.raw.columns import (
    Column,
    Settings,
    add_column_arguments,
    add_video_arguments,
    check_files,
    check_inputs,
    check_names,
    check_values,
    has_pattern,
    matched,
    read_once,
    sources,
)
from umemma_jax.data_prep.raw.sample_weights import read_sample_weights
from umemma_jax.errors import UserError


@dataclass(frozen=True)
class Choices:
    """What to take of a table, and how; the fields are the command line's.

    Attributes:
      modalities: what to take from it, in the order that the dataset shall have; None: `inferred` says.
      types: of columns, what they hold, where that is inferred otherwise; a mapping, or pairs.
      leave_out: columns to leave out, where the others are inferred.
      label: column of the label or labels, or several columns of targets; None prepares a dataset without labels.
      label_separator: between several labels of a field; "" if each field is one; None if none looks like several.
      target: `classes` or `numbers`, which the labels are; None to go by the fields.
      na_values: what stands for a missing label or number, beside an empty field.
      split: column of the split, or the shares of train, val and test, which take labels. None draws `SHARES`; without
        labels it puts all rows into `test`.
      groups: column whose values never cross splits.
      folds: of cross-validation, 2 or more, each of which becomes a dataset of its own; 0 for one dataset.
      weight: column of the training examples' weights in the loss; None for ones.
      id: column of the examples' ids; None numbers the rows.
      seed: of the split, where shares are given.
      rate: sound is resampled to it, Hz.
      fps: frames of a second of a video to keep.
      seconds: most of a video, or of sound, that is read.
      size: images and frames keep at most so many pixels on their shorter side.
      max_pixels: images and videos of more are refused; None: as `umemma_jax.data_prep.raw.limits` says.
      drop_unseen: whether examples of classes that training never sees are dropped.
    """

    modalities: Sequence[Column] | None = None
    types: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    leave_out: Sequence[str] = ()
    label: str | Sequence[str] | None = None
    label_separator: str | None = None
    target: str | None = None
    na_values: Sequence[str] = MISSING_MARKS
    split: str | None = None
    groups: str | None = None
    folds: int = 0
    weight: str | None = None
    id: str | None = None
    seed: int = 0
    rate: int = 16000
    fps: float = 1.0
    seconds: float = 10
    size: int = 256
    max_pixels: int | None = None
    drop_unseen: bool = False

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of the label."""
        return label_columns(self.label)

    @property
    def splitting(self) -> Splitting:
        """How the rows are split."""
        return Splitting(self.split, self.groups, self.folds, self.seed, self.na_values, self.label is not None)

    def others(self) -> dict[str, str]:
        """Of the table, the columns that are no inputs, and what they are."""
        split = None if shares_of(self.split) else self.split
        others = {"split": split, "groups": self.groups, "weight": self.weight, "id": self.id or None}
        named = {column: meaning for meaning, column in others.items() if column is not None}
        return dict.fromkeys(self.label_columns, "label") | named

    def columns(self) -> list[str]:
        """Of the table, those that are read."""
        return [*(column for modality in self.modalities for column in modality.columns), *self.others()]

    def record(self) -> dict[str, Any]:
        """What `dataset.json` says of them."""
        modalities = [asdict(modality) for modality in self.modalities]
        lists = {"na_values": list(self.na_values), "leave_out": list(self.leave_out)}
        return {**vars(self), "modalities": modalities, "types": dict(self.types), **lists}


def inferred(
    table: Table, choices: Choices, groups: Mapping[str, str | Sequence[str]] | None = None
) -> tuple[Choices, str]:
    """The choices with the modalities that the columns of a table make, and what the columns are taken for, in words.

    Args:
      table: with all its columns.
      choices: without modalities.
      groups: name of a modality -> its columns, or a pattern of their names, as in {"labs": "lab_*"}.

    Raises:
      UserError: a column is not there, is of no such type, or cannot be an input; or no column is left.
    """
    given = dict(choices.types) | dict.fromkeys(choices.leave_out)
    types = column_types.infer(table, choices.others(), given, choices.na_values)
    modalities = grouping.modalities(types, groups)
    return replace(choices, modalities=modalities), grouping.describe(types, modalities)


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    table: str | None = None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    name: str | None = None,
    processes: int | str = 1,
    max_unreadable: float = console.MAX_UNREADABLE,
    **choices: Any,
) -> None:
    """Prepares the dataset of a table file, or of one for each split.

    Args:
      out: folder to make.
      seed: of the split, where shares are given.
      overwrite: whether `out` may be replaced.
      table: .csv, .tsv, .jsonl or .parquet file.
      train: likewise, of the examples to train on, in place of `table`; paths count from its folder.
      validation: of those that choose the best epochs; None leaves that to a share of `train`.
      test: of those that are reported on.
      name: of the dataset; None takes the table's.
      processes: how many read files; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the files that may be unreadable.
      **choices: the other fields of `Choices`.

    Raises:
      UserError: the table cannot be understood, or `out` is in use.
    """
    chosen = Choices(seed=seed, **choices)
    if chosen.modalities:
        if chosen.types or chosen.leave_out:
            raise UserError(
                "--type and --leave-out: only where no modality is named: leave them out, or the modalities"
            )
        check_names(chosen.modalities)
    of_splits = dict(zip(SPLITS, (train, validation, test), strict=True))
    tables = [_read(path, chosen) for path in _paths(table, of_splits)]
    path, rows = tables[0].path, [row for part in tables for row in part.rows]
    if chosen.modalities:
        inputs = [column for column in tables[0].columns if column not in chosen.others()]
        chosen = replace(chosen, modalities=[matched(modality, inputs) for modality in chosen.modalities])
    else:
        chosen, description = inferred(replace(tables[0], rows=rows), chosen)
        print(description)
    for part in tables:
        check_columns(part.path, chosen.columns(), part.columns)
    given = None
    if table is None:
        splits = [split for split, path in of_splits.items() if path is not None]
        given = {row.where: split for split, part in zip(splits, tables, strict=True) for row in part.rows}
    writing = {"overwrite": overwrite, "processes": processes, "max_unreadable": max_unreadable}
    prepare_rows(out, rows, chosen, path, name or path.stem, given=given, **writing)


def _paths(table: str | None, of_splits: Mapping[str, str | None]) -> list[Path]:
    """The one table, or those of the splits that have any."""
    named = [path for path in of_splits.values() if path is not None]
    if (table is None) == (of_splits[SPLITS[0]] is None) or (table is not None and named):
        raise UserError("--table: name one table; or one for each split with --train, --validation and --test")
    if len(set(named)) < len(named):
        raise UserError("--train, --validation and --test: two of them are the same file: name another")
    return [Path(path) for path in named or [table]]


def _read(path: Path, choices: Choices) -> Table:
    """The columns of a table that are chosen; all, where that is yet to be inferred, or patterns are to be matched."""
    if not choices.modalities or any(has_pattern(modality) for modality in choices.modalities):
        return table_of(path)
    columns = tuple(dict.fromkeys(choices.columns()))
    return Table(path, columns, read_rows(path, columns))


def prepare_rows(
    out: str,
    rows: Sequence[Row],
    choices: Choices,
    table: Path,
    name: str,
    overwrite: bool = False,
    processes: int | str = 1,
    max_unreadable: float = console.MAX_UNREADABLE,
    given: Mapping[str, str] | None = None,
) -> None:
    """Prepares the dataset of the rows of a table; with `choices.folds`, those in `out`/fold0, `out`/fold1 ...

    Args:
      out: folder to make.
      rows: with the columns that are chosen.
      choices: what to take.
      table: what messages call it; paths count from its folder.
      name: of the dataset.
      overwrite: whether `out` may be replaced.
      processes: how many read files; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the files that may be unreadable.
      given: split of each row, by `Row.where`; None: as `choices` says.

    Raises:
      UserError: a row cannot be understood, or `out` is in use.
    """
    check_names(choices.modalities)
    check_inputs(choices.modalities, choices.label_columns)
    if choices.folds and given is None:
        writing = {"overwrite": overwrite, "processes": processes, "max_unreadable": max_unreadable}
        for fold, splits in enumerate(choices.splitting.fold_splits(rows, _labels(rows, choices, Report()).strata)):
            prepare_rows(str(Path(out) / f"fold{fold}"), rows, choices, table, name, given=splits, **writing)
        return
    report = Report()
    ids = {row.where: text_of(row, choices.id) if choices.id else f"{n:07d}" for n, row in enumerate(rows)}
    labels = _labels(rows, choices, report)
    splits = choices.splitting.splits(rows, labels.strata, report, given)
    used = sorted((row for row in rows if row.where in splits), key=lambda row: SPLITS.index(splits[row.where]))

    check_values(choices.modalities, used, choices.na_values)
    check_files(choices.modalities, used, table.parent)
    settings = Settings(
        table.parent,
        choices.size,
        choices.rate,
        choices.fps,
        choices.seconds,
        tuple(choices.na_values),
        choices.max_pixels,
    )
    trained = [row for row in used if splits[row.where] == SPLITS[0]]
    by_name = sources(choices.modalities, trained or used, settings)
    examples = []
    for row in used:
        values = read_once({name: source.take(row, report) for name, source in by_name.items()})
        examples.append(unlabelled(splits[row.where], ids[row.where], values))
    check_ids(examples, str(table))
    examples, of_labels = labels.give(examples, used, report)
    if choices.weight is not None:
        weights = read_sample_weights(trained, choices.weight, choices.na_values)
        by_id = {ids[where]: weight for where, weight in weights.items()}
        examples = [replace(example, sample_weight=by_id.get(example.id)) for example in examples]

    writer = DatasetWriter(
        out,
        name=name,
        description=f"From the table {table.name}.",
        modalities={name: source.modality for name, source in by_name.items()},
        **of_labels,
        source={"command": "data_prep.table", "table": str(table), **choices.record()},
        overwrite=overwrite,
    )
    write_dataset(writer, out, examples, report, processes, max_unreadable)


def _labels(rows: Sequence[Row], choices: Choices, report: Report) -> Labelling:
    columns, missing = choices.label_columns, choices.na_values
    if not columns:
        return Unlabelled({row.where: [] for row in rows})
    if is_regression(rows, columns, choices.target, missing, report):
        return TargetLabels(columns, read_targets(rows, columns, missing, report))
    names, multi_label = read_labels(rows, columns[0], choices.label_separator, missing, report)
    return ClassLabels(names, multi_label, choices.drop_unseen)


# --- the command line -------------------------------------------------------------------------------------------------


def _names(text: str) -> str | tuple[str, ...]:
    return tuple(text.split(",")) if "," in text else text


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.table", "Your own data, from a table.")
    parser.add_argument("--table", metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    for flag, what in {
        "train": "to train on",
        "validation": "that choose the best epochs",
        "test": "to report on",
    }.items():
        parser.add_argument(f"--{flag}", metavar="FILE", help=f"in place of --table: of the examples {what}")
    add_column_arguments(parser)
    add_video_arguments(parser)
    column_types.add_type_arguments(parser)
    parser.add_argument(
        "--label",
        type=_names,
        metavar="COLUMN,...",
        help="label, list of labels, or targets (default: the dataset has no labels, and is for predictions)",
    )
    parser.add_argument(
        "--target",
        choices=(CLASSES, NUMBERS),
        help="what the label is (default: numbers, if they have more than 20 different values)",
    )
    parser.add_argument(
        "--label-separator",
        metavar="SIGN",
        help="between several labels of a field; '' if each is one",
    )
    parser.add_argument(
        "--na-values",
        type=console.names,
        default=MISSING_MARKS,
        metavar="A,B,...",
        help=f"no labels and no numbers, in upper or lower case (default: {','.join(MISSING_MARKS)})",
    )
    add_split_arguments(parser)
    parser.add_argument("--weight", metavar="COLUMN", help="of the examples in training (default: all the same)")
    parser.add_argument("--id", metavar="COLUMN", help="ids of the examples (default: numbers of the rows)")
    parser.add_argument("--name", help="of the dataset (default: the table's)")
    console.add_image_arguments(parser)
    console.add_drop_unseen_argument(parser)
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
