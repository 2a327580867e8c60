"""What is said of the targets of examples, as a table and as arrays."""

import csv
import io

import numpy as np
import pytest

from tests.evaluation.numbers_said import TARGETS, split, spread_left
from umemma_jax import predict
from umemma_jax.evaluation.sigma_calibration import fit
from umemma_jax.target_predictions import from_evidence

IDS = [str(number) for number in range(300)]


def predicted(targets=TARGETS, calibrated=True):
    said = split(300, targets=targets, seed=1)
    present = said.available.copy()
    present[0] = False  # nothing at all
    evidence = np.where(present.any(axis=1, keepdims=True), said.patterns["a+b"], np.nan)
    calibration = fit(split(2000, targets=targets), alpha=0.1) if calibrated else None
    return said.label, from_evidence(IDS, ("a", "b"), present, evidence, targets, calibration)


def rows_of(predictions):
    return list(csv.DictReader(io.StringIO(predict.to_csv(predictions))))


def test_values_and_intervals_are_in_the_units_of_the_targets():
    label, found = predicted()
    assert np.isnan(found.values[0]).all() and np.isnan(found.low[0]).all()
    inside = (found.low[1:] <= label[1:]) & (label[1:] <= found.high[1:])
    assert inside.mean() == pytest.approx(0.9, abs=0.04)
    for target, column, sigma in zip(TARGETS, (found.values - label)[1:].T, found.sigmas[1:].T, strict=True):
        assert column.std() == pytest.approx(target.std * spread_left("a+b"), rel=0.15)
        assert sigma.mean() == pytest.approx(target.std * spread_left("a+b"), rel=0.1)


def test_a_row_for_each_example():
    _, found = predicted(TARGETS[:1])
    rows = rows_of(found)
    assert list(rows[0]) == ["id", "present", "prediction", "sigma", "low", "high"]
    assert rows[0]["prediction"] == rows[0]["low"] == ""
    for number, row in enumerate(rows[1:], start=1):
        assert float(row["prediction"]) == pytest.approx(found.values[number, 0], rel=1e-5)
        assert float(row["low"]) < float(row["prediction"]) < float(row["high"])


def test_several_targets_have_columns_of_their_own():
    _, found = predicted()
    columns = ["price", "price sigma", "price low", "price high", "views", "views sigma", "views low", "views high"]
    assert list(rows_of(found)[0]) == ["id", "present", *columns]
    assert found.arrays()["values"].shape == (300, 2)


def test_without_calibration_there_are_no_intervals():
    _, found = predicted(TARGETS[:1], calibrated=False)
    assert list(rows_of(found)[0]) == ["id", "present", "prediction", "sigma"]
    assert "low" not in found.arrays()


def test_small_numbers_are_numbers_in_a_spreadsheet():
    _, found = predicted(TARGETS[:1], calibrated=False)
    found.values[1] = -1e-7
    assert rows_of(found)[1]["prediction"] == "-1e-07"
