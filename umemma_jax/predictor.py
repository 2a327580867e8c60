"""The Python object: fits a model to any table, reports on it, and answers for rows that lack whatever they lack.

It drives the rooms of the command line: a run of either is loaded by the other. In the examples, `train`, `validation`
and `test` are tables of things with a `kind` ("shirt", "shoe" or "watch"), a `title`, a `price` and a `weight`, some of
them empty.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umemma_jax import start

start.as_library()  # before JAX is loaded

import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from umemma_jax import config as config_lib  # noqa: E402
from umemma_jax import experiment, export, predict, presets, runs, saved_model  # noqa: E402
from umemma_jax.answers import Answer, answers  # noqa: E402
from umemma_jax.by_pattern import ByPattern  # noqa: E402
from umemma_jax.data.dataset import open_dataset  # noqa: E402
from umemma_jax.data.info import Info  # noqa: E402
from umemma_jax.data.kinds import Stored  # noqa: E402
from umemma_jax.data_prep import table as data_table  # noqa: E402
from umemma_jax.data_prep.build import console  # noqa: E402
from umemma_jax.data_prep.build.dataframes import is_row, table_of  # noqa: E402
from umemma_jax.data_prep.build.labelling import labels_as_trained  # noqa: E402
from umemma_jax.data_prep.build.prep_report import Report  # noqa: E402
from umemma_jax.data_prep.build.rows import Row, Table, meant  # noqa: E402
from umemma_jax.data_prep.build.splits import SPLITS  # noqa: E402
from umemma_jax.data_prep.raw.reading import RowReader  # noqa: E402
from umemma_jax.errors import UserError  # noqa: E402
from umemma_jax.patterns import all_patterns, pattern_name  # noqa: E402
from umemma_jax.predict import Predictions  # noqa: E402
from umemma_jax.reporting import markdown  # noqa: E402
from umemma_jax.reporting.reading import read_report  # noqa: E402
from umemma_jax.row_evaluation import Evaluation, evaluate_rows  # noqa: E402
from umemma_jax.training import train as training  # noqa: E402
from umemma_jax.training.workdir import RECORD  # noqa: E402

DATA = "data"  # folder in the workdir


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
) -> "Predictor":
    """Trains a model on a table, and reports on it.

    The same call on the same workdir goes on where an earlier one was ended, or does not train again.

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
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed={seed!r}: is no whole number from 0 on")
    tables = dict(zip(SPLITS, (train, validation, test), strict=True))
    table, splits = _joined({part: table_of(data) for part, data in tables.items() if data is not None})
    if splits and split is not None:
        raise UserError(f"split={split!r}: the tables say what is validation and test: leave it out")
    chosen = _choices(table, label, split, columns or {}, modalities, {"seed": seed, **choices})
    folder = Path(workdir or Path("runs") / "_".join(chosen.label_columns))
    _prepare(folder, table, chosen, splits)
    recipe = _preset(preset, str(folder / DATA), method, checkpoints)
    config_lib.set_fields(recipe, {"seed": seed, "time_limit": time_limit})
    required = _required(tuple(recipe.modalities), required, optional)
    if required:  # training drops none of them
        recipe.missing.keep = ConfigDict(dict.fromkeys(_with(required, recipe.modalities), 1.0))
    config_lib.set_fields(recipe, config or {})
    built = experiment.build(recipe)
    _check_present(built.dataset.info, required)
    for line in built.cut_texts():
        print(line)
    try:
        trained = training.train(built, folder)
    except training.Preempted as stop:
        raise KeyboardInterrupt(f"{stop}; the same call continues") from stop
    results = runs.conclude(built, trained, folder, f"umemma_jax.fit(..., label={label!r})", required)
    print(markdown.summary(results))
    return load(folder)


def load(folder: str | Path) -> "Predictor":
    """A trained model.

    >>> load(workdir).classes
    ('shirt', 'shoe', 'watch')

    Args:
      folder: the workdir of a run, of `fit` or of the command line; or a folder that `Predictor.save` wrote.

    Raises:
      UserError: there is none, or it is damaged or of another version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: name that of a run or of a saved model")
    is_run = not (folder / saved_model.RECORD).exists() and (folder / RECORD).exists()
    if is_run and not (folder / saved_model.FOLDER).exists():
        raise UserError(f"{folder}: this run has not come to its end: run the same command again, or with --mode=eval")
    return Predictor(folder / saved_model.FOLDER if is_run else folder)


class Predictor:
    """A trained model: answers for rows that lack any of their inputs.

    Attributes:
      folder: of the saved model.
      modalities: names of the inputs, M of them.
      classes: K names; () where numbers are predicted.
      quality: the report's headline metric by missing pattern.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError as `load`."""
        self.folder = folder
        self._model = saved_model.read(folder)
        self._reader = RowReader(self._model.info, self._model.modalities)
        self._told: set[str] = set()  # notes on tables, which are printed once
        model = self._model
        self._run = ByPattern(model.module, model.variables, model.inputs, model.info, model.means)
        self.modalities = self._model.modalities
        self.classes = self._model.info.classes
        self.quality = self._model.quality

    def predict(self, data: Any, floor: float = 0.0) -> Answer | list[Answer]:
        """Answers: one for a row that is given as a dict, a list of them for several rows.

        >>> answer = model.predict({"title": "sole lace heel", "price": None})
        >>> answer.prediction, answer.used
        ('shoe', ('title',))
        >>> model.predict({"title": "new"}, floor=0.99).abstain
        True

        Args:
          data: rows in any form that `fit` takes. Columns go by name, in any order; one that is lacking, or empty, is a
            missing input.
          floor: least probability of an answer; what is less sure says `abstain`.

        Raises:
          UserError: a value cannot be read, is of another type than in training, or a required input is missing.
        """
        found = answers(self._predictions(table_of(data)), self.quality, floor)
        return found[0] if is_row(data) else found

    def predict_proba(self, data: Any) -> np.ndarray:
        """Calibrated probabilities of the classes, float32 [N, K], or [K] of one row; NaN where there is no input.

        >>> model.predict_proba({"title": "sole"}).shape
        (3,)

        Arguments and errors are those of `predict`.
        """
        if not self.classes:
            raise UserError("predict_proba: this model predicts numbers, not classes: use predict")
        probabilities = self._predictions(table_of(data)).probabilities
        return probabilities[0] if is_row(data) else probabilities

    def features(self, data: Any) -> dict[str, np.ndarray]:
        """What each encoder makes of its input, float32 [N, D_m] by modality; NaN where a row lacks it.

        >>> sorted(model.features({"title": "sole"}))
        ['tabular', 'title']

        Arguments and errors are those of `predict`.
        """
        said = self._run(self._values(table_of(data)))
        present = dict(zip(self.modalities, said.present.T, strict=True))
        return {m: np.where(present[m][:, None], x, np.nan) for m, x in said.features.items()}

    def evaluate(self, data: Any) -> Evaluation:
        """The robustness report on other rows than those of training, with labels in the column that `fit` was told.

        Thresholds and temperatures are those of the training's validation examples. Rows without a label are left out,
        and counted.

        >>> print(model.evaluate(test))  # doctest: +ELLIPSIS
        data: UME-MMA with modalities missing
        ...

        Args:
          data: rows in any form that `fit` takes.

        Raises:
          UserError: as of `predict`; or no row has a label, or one has a class that training has never seen.
        """
        table, dropped = table_of(data), Report()
        rows, label = labels_as_trained(table.rows, self._model.info, dropped)
        dropped.print_kinds()
        values = self._values(dataclasses.replace(table, rows=rows))
        return evaluate_rows(self._model, self._run, values, label, table.path.stem)

    def report(self) -> Evaluation:
        """The robustness report of the test examples that `fit` left aside, or was given.

        >>> sorted(model.report().results["patterns"])
        ['tabular', 'tabular+title', 'title']
        """
        return Evaluation(read_report(self.folder / saved_model.REPORT))

    def save(self, folder: str | Path) -> None:
        """Copies the model into a folder that can be moved anywhere; `load` reads it.

        >>> model.save(workdir / "saved")
        >>> load(workdir / "saved").modalities
        ('tabular', 'title')

        Raises:
          UserError: the folder exists, or cannot be written.
        """
        saved_model.copy(self.folder, Path(folder))

    def export(self, path: str | Path) -> None:
        """Writes the model into one file that JAX and NumPy alone run, on CPUs, GPUs and TPUs: see docs/export.md.

        >>> from umemma_jax import serving
        >>> model.export(workdir / "model.stablehlo")
        >>> serving.load(workdir / "model.stablehlo")
        ExportedModel(tabular, title -> 3 classes)

        Args:
          path: of the file, `NAME.stablehlo`; what is there is replaced. Beside it, `NAME.stablehlo.json` says what
            is in it.

        Raises:
          UserError: it cannot be written, or an encoder of your own cannot do with any number of rows.
        """
        export.export(self._model, Path(path))

    @property
    def traces(self) -> int:
        """How many programs were made for predictions: one for each missing pattern and power of two of rows."""
        return self._run.traces.traces

    def __repr__(self) -> str:
        targets = ", ".join(target.name for target in self._model.info.targets)
        predicted = targets or f"{len(self.classes)} classes"
        return f"Predictor({self.folder}: {', '.join(self.modalities)} -> {predicted})"

    def _predictions(self, table: Table) -> Predictions:
        said, model = self._run(self._values(table)), self._model
        ids = [row.where for row in table.rows]
        return predict.from_logits(ids, self.modalities, said.present, said.logits, model.info, model.calibration)

    def _values(self, table: Table) -> list[dict[str, Stored]]:
        """The stored values of each row, by modality; without what it lacks."""
        for note in self._reader.notes(table.columns, all_lacking=len(table.rows) > 1):
            if note not in self._told:
                self._told.add(note)
                print(note)
        folder = table.path.parent
        values = [self._reader.read(row, folder) for row in table.rows]
        for row, found in zip(table.rows, values, strict=True):
            for m in self._model.required:
                if m not in found:
                    raise UserError(f"{row.where}: lacks {m!r}, which this model requires: give it")
        return [{m: self._run.encode(m, value) for m, value in found.items()} for found in values]


# --- what fit does ----------------------------------------------------------------------------------------------------


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
    split: str | None,
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
            raise UserError(f"fit: no option {name!r}{meant(name, known)}: there are {', '.join(known)}")
    if others.get("folds"):
        raise UserError("fit: folds are for the command line, see --folds of data_prep.table and --mode=folds")
    choices = data_table.Choices(types=types, leave_out=left_out, label=label, split=split, **others)
    chosen, description = data_table.inferred(table, choices, groups)
    print(description)
    return chosen


def _prepare(workdir: Path, table: Table, choices: data_table.Choices, splits: Mapping[str, str] | None) -> None:
    """Prepares the data in the workdir, or makes sure that those which are there are the same."""
    place, name = workdir / DATA, "_".join(choices.label_columns)

    def prepare(folder: Path, overwrite: bool = False) -> None:
        rows, processes = table.rows, console.cores()
        data_table.prepare_rows(str(folder), rows, choices, table.path, name, overwrite, processes, given=splits)

    if not (workdir / RECORD).exists():  # nothing was trained on what may be there
        prepare(place, overwrite=True)
        return
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".data.partial-") as folder:
        prepare(Path(folder, DATA))
        if open_dataset(Path(folder, DATA)).fingerprint != open_dataset(place).fingerprint:
            raise UserError(f"{workdir}: holds a run of other data: name another workdir, or remove this one")


def _preset(preset: str, data: str, method: str, checkpoints: str | Mapping[str, str]) -> ConfigDict:
    if preset == "base":
        return presets.base(data, method, checkpoints)
    if preset != "small":
        raise UserError(f"preset={preset!r}: unknown, use small or base")
    if checkpoints:
        raise UserError(f"checkpoints={checkpoints!r}: are for preset='base'")
    return presets.small(data, method)


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
