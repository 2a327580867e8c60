"""From a table to a trained model, or to the report of a cross-validation, in one call.

The examples are of the same tables as those of `predictor`.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umemma_jax import start

start.as_library()  # before JAX is loaded

import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from umemma_jax import config as config_lib  # noqa: E402
from umemma_jax import cross_validation, experiment, presets, runs  # noqa: E402
from umemma_jax.data.dataset import open_dataset  # noqa: E402
from umemma_jax.data.info import Info  # noqa: E402
from umemma_jax.data_prep import table as data_table  # noqa: E402
from umemma_jax.data_prep.build import console  # noqa: E402
from umemma_jax.data_prep.build.dataframes import table_of  # noqa: E402
from umemma_jax.data_prep.build.rows import Row, Table, meant  # noqa: E402
from umemma_jax.data_prep.build.splits import SPLITS  # noqa: E402
from umemma_jax.errors import UserError  # noqa: E402
from umemma_jax.patterns import all_patterns, pattern_name  # noqa: E402
from umemma_jax.predictor import Predictor, load  # noqa: E402
from umemma_jax.reporting import markdown  # noqa: E402
from umemma_jax.training import train as training  # noqa: E402
from umemma_jax.training.workdir import RECORD  # noqa: E402

DATA = "data"  # folder in the workdir
FIRST_FOLD = "fold0"


def fit(
    train: Any,
    label: str | Sequence[str],
    workdir: str | Path | None = None,
    *,
    validation: Any = None,
    test: Any = None,
    split: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    modalities: Mapping[str, str | Sequence[str]] | None = None,
    required: Sequence[str] = (),
    optional: Sequence[str] | None = None,
    method: str = "ume_mma",
    preset: str = "small",
    checkpoints: str | Mapping[str, str] = "",
    time_limit: float = 0.0,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Predictor:
    """Trains a model on a table, and reports on it.

    The same call on the same workdir goes on where an earlier one was ended, or does not train again.

    Examples:
      >>> model = fit(train, "kind", workdir, validation=validation, test=test, config=config)  # doctest: +ELLIPSIS
      column  type    modality  filled  why
      ...
      >>> model.modalities
      ('tabular', 'title')

    Args:
      train: the table: a data frame of pandas or polars, a list of dicts, a dict of columns, or the path of a CSV, TSV,
        JSON lines or Parquet file. An empty field is a missing input.
      label: column of the class or classes, or of the number, to predict; several columns of numbers are several
        targets.
      workdir: folder of data, checkpoints, report and model; by default `runs/<label>`.
      validation: table of the examples that choose epochs and fit the calibration; without one a share of `train` does.
      test: table that the report is about; without one a share of `train` that nothing else sees.
      split: column that says `train`, `val` or `test`, or the shares to draw, "0.8,0.1,0.1" by default.
      columns: types of columns, instead of those inferred: number, category, date, text, image, audio or video; None
        leaves one out.
      modalities: columns that make one modality, by its name: a list of them or a pattern, as in {"labs": "lab_*"}.
        All numbers, categories and dates that are in none make the modality `tabular`.
      required: modalities that are always there: the model is not trained for their absence, no row of the tables may
        lack one, and none that does is answered.
      optional: modalities that may be missing, where all others are required; None: those that are not `required`.
      method: `ume_mma`, `ume`, `augmentation` or `late_fusion`.
      preset: `small`, encoders that learn from scratch, or `base`, pre-trained ones from `checkpoints`.
      checkpoints: folder of checkpoints, or modality -> folder or `hf://OWNER/NAME`, as of `presets.base`.
      time_limit: seconds for training and report; 0 for no limit.
      seed: of everything random.
      config: fields of the recipe, by their dotted names, as in {"fusion.epochs": 3}.
      **choices: other fields of `data_prep.table.Choices`, as label_separator, na_values, target or drop_unseen.

    Raises:
      UserError: the data cannot be understood, or the workdir holds a run of other data or another recipe.
    """
    _check_seed(seed)
    tables = dict(zip(SPLITS, (train, validation, test), strict=True))
    table, splits = _joined({part: table_of(data) for part, data in tables.items() if data is not None})
    if splits and split is not None:
        raise UserError(f"split={split!r}: the tables say what is validation and test: leave it out")
    if choices.get("folds"):
        raise UserError("fit: folds make several models: use cross_validate")
    chosen = _choices(table, label, columns or {}, modalities, {"split": split, "seed": seed, **choices})
    folder = Path(workdir or Path("runs") / "_".join(chosen.label_columns))
    _prepare(folder, table, chosen, splits)
    recipe = _preset(preset, str(folder / DATA), method, checkpoints)
    required = _make_required(recipe, required, optional)
    config_lib.set_fields(recipe, {"seed": seed, "time_limit": time_limit, **(config or {})})
    built = experiment.build(recipe)
    _check_present(built.dataset.info, required)
    for line in built.cut_texts():
        print(line)
    with _interruptible():
        trained = training.train(built, folder)
    results = runs.conclude(built, trained, folder, f"umemma_jax.fit(..., label={label!r})", required)
    print(markdown.summary(results))
    return load(folder)


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """The report of a cross-validation: prints as the headline of each missing pattern, over all folds and of each.

    Attributes:
      results: all of it, as cross_validation.json holds it.
      folders: of the folds' runs, each of which `load` reads.
    """

    results: dict[str, Any]
    folders: tuple[Path, ...]

    def __str__(self) -> str:
        return markdown.cross_validation_summary(self.results)


def cross_validate(
    train: Any,
    label: str | Sequence[str],
    workdir: str | Path | None = None,
    *,
    folds: int = 5,
    columns: Mapping[str, str | None] | None = None,
    modalities: Mapping[str, str | Sequence[str]] | None = None,
    required: Sequence[str] = (),
    optional: Sequence[str] | None = None,
    method: str = "ume_mma",
    preset: str = "small",
    checkpoints: str | Mapping[str, str] = "",
    time_limit: float = 0.0,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    **choices: Any,
) -> CrossValidation:
    """Trains a model on each fold of a table, tests it on the rows of that fold, and reports on all of them.

    A fold that is finished in the workdir is not trained again.

    Examples:
      >>> found = cross_validate(train, "kind", workdir / "folds", folds=2, config=config)  # doctest: +ELLIPSIS
      column  type    modality  filled  why
      ...
      >>> found.results["examples"]
      [75, 75]

    Args:
      folds: number of them, from 2 on; with `groups="COLUMN"` no value of that column is in two of them.
      workdir: folder of data, runs and report; by default `runs/<label>_folds`.
      time_limit: seconds for training and report of each fold; 0 for no limit.

    All other arguments, and errors, are those of `fit`.
    """
    _check_seed(seed)
    if not isinstance(folds, int) or folds < 2:
        raise UserError(f"folds={folds!r}: is no whole number from 2 on")
    table = table_of(train)
    chosen = _choices(table, label, columns or {}, modalities, {"folds": folds, "seed": seed, **choices})
    folder = Path(workdir or Path("runs") / f"{'_'.join(chosen.label_columns)}_folds")
    _prepare(folder, table, chosen)
    first = folder / DATA / FIRST_FOLD
    recipe = _preset(preset, str(first), method, checkpoints)
    required = _make_required(recipe, required, optional)
    config_lib.set_fields(recipe, {"seed": seed, "time_limit": time_limit, **(config or {})})
    _check_present(open_dataset(first).info, required)
    with _interruptible():
        made_by = f"umemma_jax.cross_validate(..., label={label!r}, folds={folds})"
        found = cross_validation.cross_validate(recipe, folder, made_by, required)
    return CrossValidation(found, tuple(folder / f"fold{number}" for number in range(folds)))


# --- what both do -----------------------------------------------------------------------------------------------------


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed={seed!r}: is no whole number from 0 on")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends training when its state is saved, and then what has called it."""
    try:
        yield
    except training.Preempted as stop:
        raise KeyboardInterrupt(f"{stop}; the same call continues") from stop


def _joined(tables: Mapping[str, Table]) -> tuple[Table, dict[str, str] | None]:
    """One table of all that are given, and the split of each row, by `Row.where`; None where only one is given."""
    first = tables[SPLITS[0]]
    if len(tables) == 1:
        return first, None
    rows, splits = [], {}
    for part, table in tables.items():
        for row in table.rows:
            where = f"{part} {row.where}"  # in memory, rows of all tables are called alike
            rows.append(Row(row.values, where))
            splits[where] = part
    columns = tuple(dict.fromkeys(name for table in tables.values() for name in table.columns))
    return Table(first.path, columns, rows), splits


def _choices(
    table: Table,
    label: str | Sequence[str],
    columns: Mapping[str, str | None],
    groups: Mapping[str, str | Sequence[str]] | None,
    others: Mapping[str, Any],
) -> data_table.Choices:
    """What is taken of the table; prints of each column what, and why."""
    types = {name: type for name, type in columns.items() if type is not None}
    left_out = tuple(name for name, type in columns.items() if type is None)
    known = [field.name for field in dataclasses.fields(data_table.Choices)]
    for name in others:
        if name not in known:
            raise UserError(f"no option {name!r}{meant(name, known)}: there are {', '.join(known)}")
    choices = data_table.Choices(types=types, leave_out=left_out, label=label, **others)
    chosen, description = data_table.inferred(table, choices, groups)
    print(description)
    return chosen


def _prepare(workdir: Path, table: Table, choices: data_table.Choices, splits: Mapping[str, str] | None = None) -> None:
    """Prepares the data in the workdir, or makes sure that those which are there are the same."""
    place, name = workdir / DATA, "_".join(choices.label_columns)
    run, dataset = (workdir / FIRST_FOLD, FIRST_FOLD) if choices.folds else (workdir, "")  # each fold has all rows

    def prepare(folder: Path, overwrite: bool = False) -> None:
        rows, processes = table.rows, console.cores()
        data_table.prepare_rows(str(folder), rows, choices, table.path, name, overwrite, processes, given=splits)

    if not (run / RECORD).exists():  # nothing was trained on what may be there
        prepare(place, overwrite=True)
        return
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".data.partial-") as folder:
        prepare(Path(folder, DATA))
        if open_dataset(Path(folder, DATA, dataset)).fingerprint != open_dataset(place / dataset).fingerprint:
            raise UserError(f"{workdir}: holds a run of other data: name another workdir, or remove this one")


def _preset(preset: str, data: str, method: str, checkpoints: str | Mapping[str, str]) -> ConfigDict:
    if preset == "base":
        return presets.base(data, method, checkpoints)
    if preset != "small":
        raise UserError(f"preset={preset!r}: unknown, use small or base")
    if checkpoints:
        raise UserError(f"checkpoints={checkpoints!r}: are for preset='base'")
    return presets.small(data, method)


def _make_required(recipe: ConfigDict, required: Sequence[str], optional: Sequence[str] | None) -> tuple[str, ...]:
    """Has the recipe drop none of the required modalities in training, and returns them."""
    required = _required(tuple(recipe.modalities), required, optional)
    if required:
        recipe.missing.keep = ConfigDict(dict.fromkeys(_with(required, recipe.modalities), 1.0))
    return required


def _required(modalities: Sequence[str], required: Sequence[str], optional: Sequence[str] | None) -> tuple[str, ...]:
    """The required ones of all modalities, by what was said of either. Raises UserError where that cannot be."""
    for kind, names in (("required", required), ("optional", optional or ())):
        for m in names:
            if m not in modalities:
                raise UserError(f"{kind}={m!r}: no modality, there are {', '.join(modalities)}")
    if both := set(required) & set(optional or ()):
        raise UserError(f"required and optional: {min(both)!r} is both: leave it in one")
    return tuple(required) if optional is None else tuple(m for m in modalities if m not in optional)


def _check_present(info: Info, required: Sequence[str]) -> None:
    """Raises UserError if an example lacks a required modality."""
    for m in required:
        lacking = sum(split.examples - split.present[m] for split in info.splits.values())
        if lacking:
            raise UserError(f"required={m!r}: {lacking} rows lack it: leave them out, or make it optional")


def _with(required: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """The names of the missing patterns in which none of these is missing."""
    needed = np.isin(modalities, required)
    return [pattern_name(pattern, modalities) for pattern in all_patterns(len(modalities)) if pattern[needed].all()]
