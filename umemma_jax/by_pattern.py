"""A trained model for examples that come one by one, or a few: what they lack is neither read nor computed.

Examples of one missing pattern go through the model together, by a program that has only the encoders of what is there.
It is compiled at the first such request, for numbers of rows that are powers of two, and kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.data.buckets import shortened
from umemma_jax.data.info import Info
from umemma_jax.data.kinds import Stored, codec
from umemma_jax.devices.sharding import Counted
from umemma_jax.inputs import Input
from umemma_jax.model import LateFusion
from umemma_jax.patterns import Pattern, all_patterns, pattern_numbers

PyTree = Any

MOST_ROWS = 256  # that one call computes


class Said(NamedTuple):
    """What a model says of N examples, float32; of what an example lacks, all is 0.

    Attributes:
      present: what each has, bool [N, M].
      features: {m: [N, D_m]}.
      unimodal: what each modality's own head makes of them, {m: [N, outputs]}.
      logits: of the model, [N, outputs].
    """

    present: np.ndarray
    features: dict[str, np.ndarray]
    unimodal: dict[str, np.ndarray]
    logits: np.ndarray


class ByPattern:
    """What a model says of examples, each with whatever it has.

    Attributes:
      modalities: M names.
      variables: of the model, on the device.
      stand_ins: for what is absent, [1, D_m] by modality.
      widths: D_m of the features, by modality.
      outputs: numbers of the logits.
      traces: counts how often a program was made, one for each pattern and number of rows.
    """

    def __init__(
        self,
        module: LateFusion,
        variables: PyTree,
        inputs: Sequence[Input],
        info: Info,
        means: Mapping[str, PyTree],
    ) -> None:
        """Takes a model, its variables, and what `Experiment` has of its inputs."""
        self._module, self.variables = module, jax.device_put(variables)
        self._lengths = {x.name: (*x.buckets, x.length) for x in inputs if x.buckets}
        self._codecs = {x.name: codec(info.modalities[x.name], x.length, x.tokenizer) for x in inputs}
        self.modalities = tuple(x.name for x in inputs)
        self.widths = {x.name: x.width for x in inputs}
        self.outputs = module.outputs
        self.stand_ins = jax.jit(self._make_stand_ins)(self.variables, dict(means))
        self.traces = Counted(self._answer)
        self._run = jax.jit(self.traces, static_argnums=0)

    def __call__(self, examples: Sequence[Mapping[str, Stored]]) -> Said:
        """Runs the model on N examples.

        Args:
          examples: of each what it has, modality -> stored value, as `encode` gives it.

        Raises:
          ValueError: a value is not what its codec made.
        """
        present = np.array([[m in example for m in self.modalities] for example in examples])
        features = {m: np.zeros((len(examples), width), np.float32) for m, width in self.widths.items()}
        unimodal = {m: np.zeros((len(examples), self.outputs), np.float32) for m in self.modalities}
        logits = np.zeros((len(examples), self.outputs), np.float32)
        for rows in self._batches(present):
            pattern = tuple(present[rows[0]].tolist())
            kept = [m for m, has in zip(self.modalities, pattern, strict=True) if has]
            found = self._batch(pattern, {m: [examples[row][m] for row in rows] for m in kept})
            logits[rows] = found.logits
            for m in kept:
                features[m][rows], unimodal[m][rows] = found.features[m], found.unimodal[m]
        return Said(present, features, unimodal, logits)

    def compile(self, rows: int) -> None:
        """Makes the programs of every missing pattern for so many rows, of the shortest texts."""
        for pattern in all_patterns(len(self.modalities)):
            kept = [m for m, has in zip(self.modalities, pattern, strict=True) if has]
            self._batch(tuple(pattern.tolist()), {m: [None] * rows for m in kept})

    def _batches(self, present: np.ndarray) -> Iterator[np.ndarray]:
        """Rows that have the same modalities, `MOST_ROWS` at most; without those that have none."""
        numbers = pattern_numbers(present)
        for number in np.unique(numbers[numbers >= 0]):
            rows = np.flatnonzero(numbers == number)
            yield from np.split(rows, range(MOST_ROWS, len(rows), MOST_ROWS))

    def _batch(self, pattern: Pattern, values: Mapping[str, Sequence[Stored]]) -> "_OfBatch":
        count = len(next(iter(values.values())))
        rows = 1 << (count - 1).bit_length()
        padding = [None] * (rows - count)
        raw = {m: self.decode(m, [*x, *padding]) for m, x in values.items()}
        found = jax.device_get(self._run(pattern, self.variables, self.stand_ins, raw))
        return jax.tree.map(lambda x: x[:count], found)

    def encode(self, name: str, value: Any) -> Stored:
        """A value of a modality as it is stored. Raises ValueError if it has not the modality's dtype or shape."""
        return self._codecs[name].encode(value)

    def decode(self, name: str, values: Sequence[Stored | None]) -> PyTree:
        """Stored values of a modality as a batch, at the smallest of its lengths that holds the longest of them."""
        decoded = self._codecs[name].decode(values)
        if name not in self._lengths:
            return decoded
        longest = decoded["length"].max()
        return shortened(decoded, next(length for length in self._lengths[name] if length >= longest))

    # What runs on the device.

    def _make_stand_ins(self, variables: PyTree, means: Mapping[str, PyTree]) -> dict[str, jax.Array]:
        features = {m: jnp.zeros((1, width)) for m, width in self.widths.items()}
        return self._module.apply(variables, features, means, method="stand_ins")

    def _answer(
        self, pattern: Pattern, variables: PyTree, stand_ins: Mapping[str, jax.Array], raw: Mapping[str, PyTree]
    ) -> "_OfBatch":
        towers = self._module.towers
        there = self._module.clone(towers=tuple(t for t, kept in zip(towers, pattern, strict=True) if kept))
        rows = jax.tree.leaves(raw)[0].shape[0]
        features, unimodal = there.apply(variables, raw, jnp.ones((rows, sum(pattern)), bool), method="encode")
        absent = {m: jnp.zeros((rows, x.shape[1]), x.dtype) for m, x in stand_ins.items()}
        present = jnp.tile(jnp.array([pattern]), (rows, 1))
        _, logits = self._module.apply(variables, {**absent, **features}, stand_ins, present, method="fuse")
        return jax.tree.map(lambda x: x.astype(jnp.float32), _OfBatch(features, unimodal, logits))


class _OfBatch(NamedTuple):
    """As `Said`, of examples with the same modalities; of these alone."""

    features: dict[str, jax.Array]
    unimodal: dict[str, jax.Array]
    logits: jax.Array
