import numpy as np
from numpy.testing import assert_allclose

from tests.preprocess.raw_rows import TABLE, preprocess


def test_tables_are_standardised_per_column_and_constant_columns_stay_finite():
    raw = np.array([[1, 2, 0], [3, -2, 0]], np.float32)
    assert_allclose(preprocess(TABLE)(raw), [[0, 8, 0], [1, 0, 0]], atol=1e-6)
