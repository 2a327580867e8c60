"""A trained model as a Python object: answers for rows that lack whatever they lack, and reports on them.

It drives the rooms of the command line: a run of either is loaded by the other. In the examples, `train`, `validation`
and `test` are tables of things with a `kind` ("shirt", "shoe" or "watch"), a `title`, a `price` and a `weight`, some of
them empty.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umemma_jax import start

start.as_library()  # before JAX is loaded

import numpy as np  # noqa: E402

from umemma_jax import export, onnx_export, predict, saved_model  # noqa: E402
from umemma_jax.answers import Answer, answers  # noqa: E402
from umemma_jax.by_pattern import ByPattern, Said  # noqa: E402
from umemma_jax.data.kinds import Stored  # noqa: E402
from umemma_jax.data_prep.build.dataframes import is_row, table_of  # noqa: E402
from umemma_jax.data_prep.build.labelling import labels_as_trained  # noqa: E402
from umemma_jax.data_prep.build.prep_report import Report  # noqa: E402
from umemma_jax.data_prep.build.rows import Table  # noqa: E402
from umemma_jax.data_prep.raw.reading import RowReader  # noqa: E402
from umemma_jax.errors import UserError  # noqa: E402
from umemma_jax.predict import Predictions  # noqa: E402
from umemma_jax.reporting.reading import read_report  # noqa: E402
from umemma_jax.row_evaluation import Evaluation, evaluate_rows  # noqa: E402
from umemma_jax.target_predictions import TargetPredictions  # noqa: E402
from umemma_jax.training.workdir import RECORD  # noqa: E402


def load(folder: str | Path) -> "Predictor":
    """A trained model.

    Examples:
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
      metric: its name.
      required: modalities that no row may lack.
      info: what the dataset of the training says of itself.
      columns: of a table, by the modality that they make.
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
        self.quality, self.metric = self._model.quality, self._model.headline
        self.required, self.info = self._model.required, self._model.info
        self.columns = self._reader.columns

    def predict(self, data: Any, floor: float = 0.0, skip_unreadable: bool = False) -> Answer | list[Answer]:
        """Answers: one for a row that is given as a dict, a list of them for several rows.

        Examples:
          >>> answer = model.predict({"title": "sole lace heel", "price": None})
          >>> answer.prediction, answer.used
          ('shoe', ('title',))
          >>> model.predict({"title": "new"}, floor=0.99).abstain
          True

        Args:
          data: rows in any form that `fit` takes. Columns go by name, in any order; one that is lacking, or empty, is a
            missing input.
          floor: least probability of an answer; what is less sure says `abstain`.
          skip_unreadable: whether a file that does not exist or cannot be read counts as missing, and is told, rather
            than ending all.

        Raises:
          UserError: a value cannot be read, is of another type than in training, or a required input is missing.
        """
        found = answers(self._predictions(table_of(data), skip_unreadable), self.quality, floor)
        return found[0] if is_row(data) else found

    def examples(self, data: Any, skip_unreadable: bool = False) -> list[dict[str, Stored]]:
        """Rows as the model takes them, modality -> stored value: the part of a prediction that reads and converts.

        Examples:
          >>> model.examples([{"title": "sole"}, {"price": 3.0}])[0]
          {'title': b'sole'}

        Arguments and errors are those of `predict`.
        """
        return self._values(table_of(data), skip_unreadable)

    def said(self, examples: Sequence[Mapping[str, Stored]]) -> Said:
        """What the model says of N rows that `examples` has read: the part of a prediction that computes.

        Examples:
          >>> model.said(model.examples([{"title": "sole"}])).logits.shape
          (1, 3)
        """
        return self._run(examples)

    def predictions(self, said: Said) -> Predictions | TargetPredictions:
        """Calibrated predictions from what the model says of N rows; they are called "0", "1", ...

        Examples:
          >>> model.predictions(model.said(model.examples([{"title": "sole"}]))).classes
          ('shirt', 'shoe', 'watch')
        """
        return self._calibrated([str(number) for number in range(len(said.logits))], said)

    def compile(self, rows: int = 1) -> None:
        """Makes the programs for so many rows, under every missing pattern, before anybody waits for one.

        Examples:
          >>> model.compile()
        """
        self._run.compile(rows)

    def predict_proba(self, data: Any, skip_unreadable: bool = False) -> np.ndarray:
        """Calibrated probabilities of the classes, float32 [N, K], or [K] of one row; NaN where there is no input.

        Examples:
          >>> model.predict_proba({"title": "sole"}).shape
          (3,)

        Arguments and errors are those of `predict`.
        """
        if not self.classes:
            raise UserError("predict_proba: this model predicts numbers, not classes: use predict")
        probabilities = self._predictions(table_of(data), skip_unreadable).probabilities
        return probabilities[0] if is_row(data) else probabilities

    def features(self, data: Any, skip_unreadable: bool = False) -> dict[str, np.ndarray]:
        """What each encoder makes of its input, float32 [N, D_m] by modality; NaN where a row lacks it.

        Examples:
          >>> sorted(model.features({"title": "sole"}))
          ['tabular', 'title']

        Arguments and errors are those of `predict`.
        """
        said = self._run(self._values(table_of(data), skip_unreadable))
        present = dict(zip(self.modalities, said.present.T, strict=True))
        return {m: np.where(present[m][:, None], x, np.nan) for m, x in said.features.items()}

    def evaluate(self, data: Any, skip_unreadable: bool = False) -> Evaluation:
        """The robustness report on other rows than those of training, with labels in the column that `fit` was told.

        Thresholds and temperatures are those of the training's validation examples. Rows without a label are left out,
        and counted.

        Examples:
          >>> print(model.evaluate(test))  # doctest: +ELLIPSIS
          data: UME-MMA with modalities missing
          ...

        Args:
          data: rows in any form that `fit` takes.
          skip_unreadable: as of `predict`.

        Raises:
          UserError: as of `predict`; or no row has a label, or one has a class that training has never seen.
        """
        table, dropped = table_of(data), Report()
        rows, label = labels_as_trained(table.rows, self._model.info, dropped)
        dropped.print_kinds()
        values = self._values(dataclasses.replace(table, rows=rows), skip_unreadable)
        return evaluate_rows(self._model, self._run, values, label, table.path.stem)

    def report(self) -> Evaluation:
        """The robustness report of the test examples that `fit` left aside, or was given.

        Examples:
          >>> sorted(model.report().results["patterns"])
          ['tabular', 'tabular+title', 'title']
        """
        return Evaluation(read_report(self.folder / saved_model.REPORT))

    def save(self, folder: str | Path) -> None:
        """Copies the model into a folder that can be moved anywhere; `load` reads it.

        Examples:
          >>> model.save(workdir / "saved")
          >>> load(workdir / "saved").modalities
          ('tabular', 'title')

        Raises:
          UserError: the folder exists, or cannot be written.
        """
        saved_model.copy(self.folder, Path(folder))

    def export(self, path: str | Path) -> None:
        """Writes the model into one file that JAX and NumPy alone run, on CPUs, GPUs and TPUs: see docs/export.md.

        Examples:
          >>> from umemma_jax import serving
          >>> model.export(workdir / "model.stablehlo")
          >>> serving.load(workdir / "model.stablehlo")
          ExportedModel(tabular, title -> 3 classes)

        Args:
          path: of the file, `NAME.stablehlo`; what is there is replaced. Beside it, `NAME.stablehlo.json` says what
            is in it. `NAME.onnx` becomes a file for ONNX Runtime, by the extra `onnx`.

        Raises:
          UserError: it cannot be written, or an encoder cannot be exported.
        """
        path = Path(path)
        write = onnx_export.export if path.suffix == ".onnx" else export.export
        write(self._model, path)

    @property
    def traces(self) -> int:
        """How many programs were made for predictions: one for each missing pattern and power of two of rows."""
        return self._run.traces.traces

    def __repr__(self) -> str:
        targets = ", ".join(target.name for target in self._model.info.targets)
        predicted = targets or f"{len(self.classes)} classes"
        return f"Predictor({self.folder}: {', '.join(self.modalities)} -> {predicted})"

    def _predictions(self, table: Table, skip_unreadable: bool) -> Predictions | TargetPredictions:
        return self._calibrated([row.where for row in table.rows], self._run(self._values(table, skip_unreadable)))

    def _calibrated(self, ids: Sequence[str], said: Said) -> Predictions | TargetPredictions:
        model = self._model
        return predict.from_logits(ids, self.modalities, said.present, said.logits, model.info, model.calibration)

    def _values(self, table: Table, skip_unreadable: bool) -> list[dict[str, Stored]]:
        """The stored values of each row, by modality; without what it lacks."""
        for note in self._reader.notes(table.columns, all_lacking=len(table.rows) > 1):
            if note not in self._told:
                self._told.add(note)
                print(note)
        folder, report = table.path.parent, Report()
        values = [self._reader.read(row, folder, report, skip_unreadable) for row in table.rows]
        if skip_unreadable:
            report.print_kinds()
        for row, found in zip(table.rows, values, strict=True):
            for m in self._model.required:
                if m not in found:
                    raise UserError(f"{row.where}: lacks {m!r}, which this model requires: give it")
        return [{m: self._run.encode(m, value) for m, value in found.items()} for found in values]
