"""What training and validation examples lose for good: `config.missing.eta`, and weights that make up for it.

Three things say how examples lose modalities, all by tables of the run's seed:

- `rate` and `kind`: a share of the examples loses one modality, or one each in equal shares (the eta protocol of the
  prompt papers). Or `rates`, a share for each modality, lost independently of the others.
- `given`: missing at random (Rubin 1976, "Inference and missing data"). The share then differs by what is observed:
  "label", by the class; or a modality, by whether the example has it. Of G groups in order (classes as in dataset.json;
  first those without the modality) group g loses rate (1 + spread (2 g / (G - 1) - 1)): from (1 - spread) to
  (1 + spread) times the rate, and the rate itself on average where groups are equally large. Left open by the field,
  chosen here.
- An example never loses the last modality that it has.

The test split is left as it is: absence that depends on the label there would tell the label.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from umemma_jax.errors import UserError, did_you_mean
from umemma_jax.missing_rates import MIXED, independent_ranks, keep, keep_independent, ranks

LABEL = "label"
ETA = "config.missing.eta"


def loses(eta: Mapping) -> bool:
    """Whether examples lose anything."""
    return bool(eta["rate"] or eta["rates"])


def stated(eta: Mapping) -> dict[str, Any]:
    """What a report says of it: `rate` and `kind`, and what else is used."""
    found = {"rate": eta["rate"], "kind": eta["kind"]}
    if eta["rates"]:
        found["rates"] = dict(eta["rates"])
    return found | ({"given": eta["given"], "spread": eta["spread"]} if eta["given"] else {})


def check(eta: Mapping, modalities: Sequence[str]) -> None:
    """Raises UserError, naming the field, where the protocol cannot be what is meant."""
    rates, given, spread = eta["rates"], eta["given"], eta["spread"]
    for name, rate in rates.items():
        if name not in modalities:
            hint = did_you_mean(name, modalities)
            raise UserError(f"{ETA}.rates: no modality '{name}', {hint}use {', '.join(modalities)}")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise UserError(f"{ETA}.rates.{name}: {rate!r} must be a number in [0, 1]")
    if rates and eta["rate"]:
        raise UserError(f"{ETA}.rates: given beside {ETA}.rate = {eta['rate']}: leave one of them out")
    if given not in ("", LABEL, *modalities):
        known = ", ".join((LABEL, *modalities))
        raise UserError(f"{ETA}.given: '{given}' is neither the label nor a modality, use {known}")
    if given and not loses(eta):
        raise UserError(f"{ETA}.given: nothing is lost, set {ETA}.rate or {ETA}.rates")
    if given in modalities and not rates and eta["kind"] in (MIXED, given):
        raise UserError(f"{ETA}.kind: '{eta['kind']}' given '{given}': name the other modality that is lost, or rates")
    if not 0 <= spread <= 1:
        raise UserError(f"{ETA}.spread: {spread} must be in [0, 1]")
    highest = max([eta["rate"], *(rate for name, rate in rates.items() if name != given)])
    if given and highest * (1 + spread) > 1:
        raise UserError(f"{ETA}.spread: {highest:g} times 1 + {spread:g} is above 1: use {1 / highest - 1:.3g} or less")


def check_labels(missing: Mapping, one_class: bool) -> None:
    """Raises UserError, naming the field, where labels that are not one class an example would have to group them."""
    asked = {"eta.given": missing["eta"]["given"] == LABEL, "inverse_propensity": missing["inverse_propensity"]}
    for field, is_asked in asked.items():
        if is_asked and not one_class:
            raise UserError(f"config.missing.{field}: for one class an example, this dataset has others: leave it out")


class Classes(NamedTuple):
    """Labels int [N] of K classes; only looked at where absence is given the label."""

    labels: np.ndarray
    count: int


def table(
    eta: Mapping, available: np.ndarray, classes: Classes | None, seed: int, modalities: Sequence[str]
) -> np.ndarray:
    """What each of N examples keeps; without `rates` and `given`, `missing_rates.missing_table`.

    Args:
      eta: of the config.
      available: bool [N, M], what the data has.
      classes: of the examples; None where absence is not given the label.
      seed: of the run.
      modalities: M names.

    Returns:
      bool [N, M].
    """
    if eta["rates"]:
        return _unequal(eta, available, classes, seed, modalities)
    groups = _groups(eta["given"], available, classes, modalities)
    column = (*modalities, MIXED).index(eta["kind"])
    rank = groups.within(ranks(len(available), seed))
    return keep(available, rank, column, groups.chosen(eta["rate"], eta["spread"]))


def _unequal(
    eta: Mapping, available: np.ndarray, classes: Classes | None, seed: int, modalities: Sequence[str]
) -> np.ndarray:
    """Each modality is lost by itself: first that which absence is given, in all examples alike, then the others."""
    given, everyone = eta["given"], _groups("", available, None, modalities)
    rank = independent_ranks(*available.shape, seed)
    rates = [eta["rates"].get(name, 0.0) for name in modalities]
    counts = np.stack([everyone.chosen(rate, 0.0) for rate in rates], axis=-1)
    groups = _groups(given, available & (rank >= counts), classes, modalities)
    for m, name in enumerate(modalities):
        if name != given:
            rank[:, m] = groups.within(rank[:, m])
            counts[:, m] = groups.chosen(rates[m], eta["spread"])
    return keep_independent(available, rank, counts)


class _Groups(NamedTuple):
    """The group of each of N examples, int [N], of G."""

    number: np.ndarray
    count: int

    def within(self, rank: np.ndarray) -> np.ndarray:
        """When each example is chosen among those of its group, int [N]: 0 for the first."""
        found = np.empty_like(rank)
        for group in range(self.count):
            rows = np.flatnonzero(self.number == group)
            found[rows[rank[rows].argsort()]] = np.arange(len(rows))
        return found

    def chosen(self, rate: float, spread: float) -> np.ndarray:
        """How many are chosen of each example's group, int [N]."""
        place = np.linspace(-1, 1, self.count) if self.count > 1 else np.zeros(1)
        sizes = np.bincount(self.number, minlength=self.count)
        return np.array([round(x) for x in sizes * rate * (1 + spread * place)])[self.number]


def _groups(given: str, observed: np.ndarray, classes: Classes | None, modalities: Sequence[str]) -> _Groups:
    """By what absence is given; one group where by nothing."""
    if given == LABEL:
        return _Groups(*classes)
    if given:
        return _Groups(observed[:, list(modalities).index(given)].astype(int), 2)
    return _Groups(np.zeros(len(observed), int), 1)


def inverse_propensity(present: np.ndarray, labels: np.ndarray, least: float) -> np.ndarray:
    """Weights under which what an example has says nothing of its class.

    The propensity of what an example has is how often examples of its class have just that (Rosenbaum and Rubin 1983,
    "The central role of the propensity score in observational studies for causal effects"). Its inverse is stabilised
    by how often all examples have it (Robins, Hernan and Brumback 2000, "Marginal structural models and causal
    inference in epidemiology"): w = P(s) / P(s | y), so that no missing pattern s weighs more than it did.

    Args:
      present: bool [N, M], of the training examples.
      labels: int [N].
      least: a propensity below it counts as this: single rows of rare patterns would weigh most otherwise.

    Returns:
      float32 [N].
    """
    _, pattern = np.unique(present, axis=0, return_inverse=True)
    pattern = pattern.reshape(-1)
    count = np.zeros((labels.max() + 1, pattern.max() + 1))
    np.add.at(count, (labels, pattern), 1)
    propensity = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    overall = count.sum(axis=0) / len(labels)
    return (overall[pattern] / np.maximum(propensity[labels, pattern], least)).astype(np.float32)
