"""umemma_jax/training/diagnosis.py: the example that makes a loss infinite is named, no learning rate is blamed."""

import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment
from umemma_jax.config import tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
from umemma_jax.training import train

pytestmark = pytest.mark.usefixtures("one_device")


def build(path, outlier, split="train"):
    """An experiment on vectors of two modalities; of one example, a value of `b` is the outlier."""
    modalities = {name: Modality(kind="tabular", encoding="float32", shape=(3,)) for name in ("a", "b")}
    rng = np.random.default_rng(0)
    with DatasetWriter(path, name="v", description="For tests.", classes=["x", "y"], modalities=modalities) as writer:
        for number in range(40):
            values = {name: rng.normal(size=3).astype(np.float32) for name in modalities}
            if number == 23:
                values["b"][1] = outlier
            writer.write("train" if number < 30 else "test", id=f"row {number}", label=number % 2, **values)
    config = small_run.get_config(path, modalities=("a", "b"), data__batch_size=8, data__validation_share=0.0)
    config.inputs.a = tower_config({"name": "mlp", "widths": (4,)})
    config.inputs.b = tower_config({"name": "mlp", "widths": (4,)}, {"mean": (0.0,) * 3, "std": (0.1,) * 3})
    return experiment.build(config)


def test_an_example_that_makes_the_loss_infinite_is_named(tmp_path):
    built = build(tmp_path / "data", outlier=3e38)
    with pytest.raises(UserError) as caught:
        train.train(built, tmp_path / "run")
    line = str(caught.value)
    assert line.startswith("stage unimodal, step ") and "\n" not in line
    assert "it comes from b of the train example 'row 23' (" in line and "tfrecord: record 23): correct or" in line
    assert "learning_rate" not in line


def test_where_every_example_is_finite_none_is_named(tmp_path):
    built = build(tmp_path / "data", outlier=30.0)
    assert train.not_finite_example(built, train.initial_variables(built)) is None
