"""Why a loss is not finite: because of a training example, or of the parameters that training has come to."""

import numpy as np

from umemma_jax.data import example
from umemma_jax.data.source import ID
from umemma_jax.devices.sharding import fetch
from umemma_jax.evaluation.evaluate import Evaluator
from umemma_jax.experiment import Experiment
from umemma_jax.model import PyTree


def not_finite_example(experiment: Experiment, variables: PyTree) -> str | None:
    """The first training example that alone is to blame, in words for an error line, or None.

    It has a modality whose features or uni-modal logits are not finite though the variables are: those that training
    starts from will do. Of several processes, all call it.
    """
    split, rows = experiment.config.data.train_split, experiment.train_rows
    evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
    capacities = experiment.capacities(split, rows)
    source = experiment.dataset.source(split)
    for batch in experiment.batches(split, rows):
        encoded = fetch(evaluator.encode(variables, [batch], capacities))
        for number, name in enumerate(experiment.modalities):
            finite = np.isfinite(encoded.features[name]).all(axis=1) & np.isfinite(encoded.logits[name]).all(axis=1)
            to_blame = encoded.index[~finite & encoded.available[:, number]]
            if len(to_blame):
                row = int(to_blame.min())
                id = example.bytes_value(source.features(row), ID) or b""
                return f"{name} of the {split} example '{id.decode()}' ({source.where(row)})"
    return None
