"""A bias for each class and missing pattern, fitted at test time without labels: TLP (arXiv 2609.02039).

Under a pattern S the logits o_i become o_i + p, where p [K] is the minimum of

    sum_k (mean_i q_ik - u_k)^2 + mean_i KL(r_i || q_i) / K

with q_i what o_i + p says, u the shares of the classes, and r_i the complete prediction that is nearest to row i.

Left open by the source's summary, chosen here: u is the mean complete prediction; complete predictions are those of
validation examples that have every modality, so that nothing of what a test example lacks is seen; nearest is the one
whose prediction under S is closest in Euclidean distance; the minimum is found to the end, by L-BFGS. Multi-label q are
a probability for each class, and KL is summed over the classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from scipy import special

from umemma_jax.evaluation import calibration
from umemma_jax.evaluation.split_logits import SplitLogits


def fit(test: SplitLogits, reference: SplitLogits) -> np.ndarray:
    """The bias of each of P patterns, float64 [P, K]; zeros of the complete one, and where no example tells.

    Args:
      test: of whose labels nothing is taken. A pattern's bias is fitted on the examples that have all of it.
      reference: other examples of the same model; those that have every modality are the complete ones.
    """
    complete = reference.available.all(axis=1)
    names, found = test.names, np.zeros((len(test.names), len(test.classes)))
    if not complete.any():
        return found
    predicted = calibration.probabilities(reference.patterns[names[0]][complete], test.multi_label)
    for number, name in enumerate(names[1:], start=1):
        rows = test.left[number] == number
        if rows.any():
            logits, others = test.patterns[name][rows].astype(float), reference.patterns[name][complete]
            found[number] = minimum(logits, _nearest(logits, others, predicted, test.multi_label), predicted.mean(0))
    return found


def minimum(logits: np.ndarray, nearest: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The bias p, float64 [K], of logits [N, K], the complete predictions nearest to them [N, K], and u [K].

    Where `nearest` sums to 1 in each row, classes exclude each other; else each has a probability of its own.
    """
    from scipy import optimize  # here, since it takes long to load

    exclusive = np.allclose(nearest.sum(axis=1), 1)
    count, classes = logits.shape

    def objective(bias: np.ndarray) -> tuple[float, np.ndarray]:
        q = special.softmax(logits + bias, axis=1) if exclusive else special.expit(logits + bias)
        off = q.mean(axis=0) - shares
        divergence = special.rel_entr(nearest, q).sum()
        if exclusive:
            slope = 2 * (q * (off - (q @ off)[:, None])).mean(axis=0)
        else:
            divergence += special.rel_entr(1 - nearest, 1 - q).sum()
            slope = 2 * off * (q * (1 - q)).mean(axis=0)
        value = (off**2).sum() + divergence / (count * classes)
        return value, slope + (q - nearest).mean(axis=0) / classes

    return optimize.minimize(objective, np.zeros(classes), jac=True, method="L-BFGS-B").x


def _nearest(logits: np.ndarray, others: np.ndarray, predicted: np.ndarray, multi_label: bool) -> np.ndarray:
    """For each row of logits [N, K] what is `predicted` of that other, [R, K], whose logits [R, K] say most alike."""
    from sklearn.neighbors import NearestNeighbors  # here, since it takes long to load

    search = NearestNeighbors(n_neighbors=1).fit(calibration.probabilities(others, multi_label))
    return predicted[search.kneighbors(calibration.probabilities(logits, multi_label), return_distance=False)[:, 0]]


def biased(split: SplitLogits, bias: np.ndarray) -> SplitLogits:
    """The split with the bias of what each example is left with, float [P, K], on its logits."""
    return replace(split, patterns=_Biased(split, bias))


class _Biased(Mapping[str, np.ndarray]):
    def __init__(self, split: SplitLogits, bias: np.ndarray) -> None:
        self._split, self._bias = split, bias.astype(np.float32)

    def __getitem__(self, name: str) -> np.ndarray:
        left = self._split.left[self._split.names.index(name)]
        return self._split.patterns[name] + np.where(left[:, None] < 0, 0, self._bias[left])

    def __iter__(self) -> Iterator[str]:
        return iter(self._split.patterns)

    def __len__(self) -> int:
        return len(self._split.patterns)
