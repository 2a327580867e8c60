"""The robustness report of a saved model on rows that it has not seen."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from umemma_jax.by_pattern import ByPattern
from umemma_jax.data.kinds import Stored
from umemma_jax.devices.sharding import make_mesh
from umemma_jax.evaluation import evaluate, robustness
from umemma_jax.evaluation.evaluate import Evaluator
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.reporting import markdown
from umemma_jax.reporting.definitions import definitions
from umemma_jax.saved_model import SavedModel


class Evaluation:
    """A robustness report: prints as the table of missing patterns, and shows itself as its page in a notebook.

    Attributes:
      results: all of it, as report.json holds it.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results

    def __str__(self) -> str:
        return markdown.summary(self.results)

    def _repr_html_(self) -> str:
        from umemma_jax.reporting.page import report_page  # here, since what draws takes long to load

        page = html.escape(report_page({**self.results, "definitions": definitions(self.results)}))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 800px; border: 0"></iframe>'


def evaluate_rows(
    model: SavedModel, run: ByPattern, examples: Sequence[Mapping[str, Stored]], label: np.ndarray, name: str
) -> Evaluation:
    """Reports on N examples; what is fitted is fitted on the validation examples of the training.

    Args:
      model: saved.
      run: of it.
      examples: of each what it has, modality -> stored value.
      label: int32 [N], float32 [N, K] of multi-label data, or float32 [N, T] of targets.
      name: of the data.
    """
    said, unimodal = run(examples), {}
    if model.ceilings is not None:
        unimodal = ByPattern(model.module, model.ceilings, model.inputs, model.info, model.means)(examples).unimodal
    arrays = evaluate.as_arrays(label, said.present, said.features, unimodal)
    mesh = make_mesh(devices=jax.devices()[:1])
    evaluator = Evaluator(model.module, mesh, model.means, model.info.targets)

    def logits_of(arrays: Mapping[str, np.ndarray]) -> SplitLogits:
        encoded = evaluate.from_host(arrays)
        predictions = evaluator.predict_patterns(run.variables, encoded)
        return evaluator.split_logits(encoded, predictions, encoded if encoded.logits else None, model.info.classes)

    validation = None if model.validation is None else logits_of(model.validation)
    found = robustness.report(logits_of(arrays), validation, evaluate.options(model.config, model.log_prior))
    about = {"dataset": name, "split": "given rows", "method": model.method, "seed": model.config.seed}
    return Evaluation({**about, "stand_in": model.config.missing.stand_in, **found.results})
