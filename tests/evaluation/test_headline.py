import numpy as np
import pytest
from sklearn import metrics as sk

from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.headline import Headline

LABEL = np.random.default_rng(0).integers(3, size=60)
SEVERAL = np.random.default_rng(0).random((60, 4)) < 0.3
ROWS = np.arange(60) % 4 > 0


def test_it_is_accuracy_and_macro_f1_of_multi_label_data_over_the_rows_that_count():
    resamples = Resamples(60, 20)
    decided = np.where(np.arange(60) % 3 > 0, LABEL, 0)
    assert Headline(LABEL, 3, resamples).value(decided, ROWS) == np.mean(decided[ROWS] == LABEL[ROWS])
    several = SEVERAL ^ (np.arange(4) == 2)
    expected = sk.f1_score(SEVERAL[ROWS], several[ROWS], average="macro", zero_division=0)
    assert Headline(SEVERAL, 4, resamples).value(several, ROWS) == pytest.approx(expected)
    assert np.isnan(Headline(LABEL, 3, resamples).value(decided, np.zeros(60, bool)))


@pytest.mark.parametrize("label", [LABEL, SEVERAL], ids=["single-label", "multi-label"])
def test_the_mean_of_a_cell_on_each_resample_is_that_of_its_decisions(label):
    headline, rng = Headline(label, 3 if label.ndim == 1 else 4, Resamples(60, 20)), np.random.default_rng(1)
    cells = [np.stack([rng.permuted(label, axis=0) for _ in range(3)]) for _ in range(2)]
    found = headline.resampled_means(iter(cells), ROWS)
    for row, decided in zip(found, cells, strict=True):
        each = headline.resampled(decided, np.stack([ROWS] * 3))
        np.testing.assert_allclose(row, each.mean(axis=0), atol=1e-6)
