import dataclasses

import numpy as np
from numpy.testing import assert_allclose

from tests.preprocess.raw_rows import TABLE, preprocess


def test_tables_are_standardised_per_column_and_constant_columns_stay_finite():
    raw = np.array([[1, 2, 0], [3, -2, 0]], np.float32)
    assert_allclose(preprocess(TABLE)(raw), [[0, 8, 0], [1, 0, 0]], atol=1e-6)


def test_a_missing_number_is_the_mean_and_a_bit_where_training_lacks_some():
    modality = dataclasses.replace(TABLE, missing=(0, 4, 1))
    raw = np.array([[1, np.nan, 5], [np.nan, -2, np.nan]], np.float32)
    assert_allclose(preprocess(modality)(raw), [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    assert_allclose(preprocess(TABLE)(raw), [[0, 0, 0], [0, 0, 0]])  # a table without holes has no bits


def test_small_numbers_are_standardised_too():
    modality = dataclasses.replace(TABLE, mean=(0.0, 0.0, 0.0), std=(1e-9, 1.0, 1e9))
    assert_allclose(preprocess(modality)(np.array([[2e-9, 2, 2e9]], np.float32)), [[2, 2, 2]], rtol=1e-6)
