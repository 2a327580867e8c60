"""What a model, whoever's it is, says of a split: all that a robustness report is made of."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from umemma_jax.data.targets import Target
from umemma_jax.patterns import all_patterns, pattern_names, pattern_numbers
from umemma_jax.prior import log_prior


@dataclass(frozen=True)
class SplitLogits:
    """Logits of N examples under each of the P missing patterns, and of uni-modal models.

    Attributes:
      modalities: M names, in the column order of `available`.
      classes: K names.
      label: int [N]; multi-label: bool [N, K]; of targets float32 [N, T], in their units.
      available: which modalities each example has, bool [N, M].
      patterns: float32 [N, K] by pattern name, in the order of `all_patterns`: each example's are made of what it has
        of the pattern, and are anything where that is nothing. They may be computed at each access.
      unimodal: float32 [N, K] by modality, anything where the example lacks it; {} where there are no such models.
      targets: T of them, where there are no classes; then logits are evidence [N, 2 T], as in `gaussian`.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    label: np.ndarray
    available: np.ndarray
    patterns: Mapping[str, np.ndarray]
    unimodal: Mapping[str, np.ndarray]
    targets: tuple[Target, ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether an example may have any number of classes."""
        return self.label.ndim == 2 and not self.targets

    @property
    def names(self) -> list[str]:
        """Of the patterns, P."""
        return pattern_names(self.modalities)

    @functools.cached_property
    def left(self) -> np.ndarray:
        """Of which pattern each example's prediction under each pattern is made, int [P, N]; -1: it has none of it."""
        return np.stack([pattern_numbers(self.available & pattern) for pattern in all_patterns(len(self.modalities))])

    def ensembles(self, prior: np.ndarray) -> "SplitLogits":
        """The uni-modal models as one model that counts the prior once: its patterns are `PriorCorrected`."""
        patterns = PriorCorrected(self.modalities, self.available, self.unimodal, prior)
        return dataclasses.replace(self, patterns=patterns)


class PriorCorrected(Mapping[str, np.ndarray]):
    """Logits of the ensemble of uni-modal models under each pattern: b0 + sum over what is left of (l_m - b0).

    A product of experts that counts the prior once, exact where modalities are independent given the class: log p(y|S)
    = log p(y) + sum over S of (log p(y|m) - log p(y)) and a constant. Of one modality alone it is that model itself. Of
    Gaussian evidence about targets, which is beyond the prior as it is, b0 is 0.
    """

    def __init__(
        self,
        modalities: tuple[str, ...],
        available: np.ndarray,
        unimodal: Mapping[str, np.ndarray],
        prior: np.ndarray,
    ) -> None:
        """Takes `SplitLogits`' attributes, and b0 [K]: the log-prior; multi-label, its logits; of targets, zeros."""
        self._patterns = dict(zip(pattern_names(modalities), all_patterns(len(modalities)), strict=True))
        self._modalities, self._available = modalities, available
        self._unimodal, self._prior = unimodal, np.asarray(prior, np.float32)

    def __getitem__(self, name: str) -> np.ndarray:
        """float32 [N, K]."""
        logits = np.tile(self._prior, (len(self._available), 1))
        for m in np.flatnonzero(self._patterns[name]):
            has = self._available[:, m, None]
            logits += np.where(has, self._unimodal[self._modalities[m]] - self._prior, 0)
        return logits

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns)

    def __len__(self) -> int:
        return len(self._patterns)


def find_prior(
    given: np.ndarray | None, validation: np.ndarray | None, label: np.ndarray, num_classes: int
) -> tuple[np.ndarray, str]:
    """The log-prior of the classes, float32 [K], and where it comes from.

    Args:
      given: by the user, or None.
      validation: labels of validation examples, or None.
      label: of the test examples, of which no more is taken than the form.
      num_classes: K.
    """
    if given is not None:
        return given, "given"
    if validation is not None:
        return log_prior(validation, num_classes), "validation examples"
    return log_prior(label[:0], num_classes), "uniform"
