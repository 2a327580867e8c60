"""A trained model for examples that come one by one, or a few: what they lack is neither read nor computed.

Examples of one missing pattern go through the model together, by a program that has only the encoders of what is there.
It is compiled at the first such request, for numbers of rows that are powers of two, and kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.data.info import Info
from umemma_jax.data.kinds import Stored, codec
from umemma_jax.devices.sharding import Counted
from umemma_jax.inputs import Input
from umemma_jax.model import LateFusion
from umemma_jax.patterns import Pattern

PyTree = Any

MOST_ROWS = 256  # that one call computes


class ByPattern:
    """What a model says of examples with the same modalities.

    Attributes:
      variables: of the model, on the device.
      stand_ins: for what is absent, [1, D_m] by modality.
      widths: D_m of the features, by modality.
      outputs: K, of the logits.
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
        self.widths = {x.name: x.width for x in inputs}
        self.outputs = module.num_classes
        self.stand_ins = jax.jit(self._make_stand_ins)(self.variables, dict(means))
        self.traces = Counted(self._answer)
        self._run = jax.jit(self.traces, static_argnums=0)

    def __call__(
        self, pattern: Pattern, values: Mapping[str, Sequence[Stored]]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Features {m: float32 [N, D_m]} of what is there, and logits, float32 [N, K].

        Args:
          pattern: what all N examples have, M bools; anything.
          values: of these modalities, the N stored values that `codec(...).encode` has given.

        Raises:
          ValueError: a value is not what its codec made.
        """
        count = len(next(iter(values.values())))
        parts = [
            self._part(pattern, {m: x[start : start + MOST_ROWS] for m, x in values.items()})
            for start in range(0, count, MOST_ROWS)
        ]
        return jax.tree.map(lambda *x: np.concatenate(x), *parts) if len(parts) > 1 else parts[0]

    def _part(
        self, pattern: Pattern, values: Mapping[str, Sequence[Stored]]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        count = len(next(iter(values.values())))
        rows = 1 << (count - 1).bit_length()
        padding = [None] * (rows - count)
        raw = {m: self.decode(m, [*x, *padding]) for m, x in values.items()}
        found = jax.device_get(self._run(pattern, self.variables, self.stand_ins, raw))
        return jax.tree.map(lambda x: x[:count], found)

    def decode(self, name: str, values: Sequence[Stored | None]) -> PyTree:
        """Stored values of a modality as a batch, at the smallest of its lengths that holds the longest of them."""
        decoded = self._codecs[name].decode(values)
        if name not in self._lengths:
            return decoded
        longest = decoded["length"].max()
        length = next(length for length in self._lengths[name] if length >= longest)
        return {key: x if key == "length" else x[:, :length] for key, x in decoded.items()}

    # What runs on the device.

    def _make_stand_ins(self, variables: PyTree, means: Mapping[str, PyTree]) -> dict[str, jax.Array]:
        features = {m: jnp.zeros((1, width)) for m, width in self.widths.items()}
        return self._module.apply(variables, features, means, method="stand_ins")

    def _answer(
        self, pattern: Pattern, variables: PyTree, stand_ins: Mapping[str, jax.Array], raw: Mapping[str, PyTree]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        towers = self._module.towers
        there = self._module.clone(towers=tuple(t for t, kept in zip(towers, pattern, strict=True) if kept))
        rows = len(jax.tree.leaves(raw)[0])
        features, _ = there.apply(variables, raw, jnp.ones((rows, sum(pattern)), bool), method="encode")
        absent = {m: jnp.zeros((rows, x.shape[1]), x.dtype) for m, x in stand_ins.items()}
        present = jnp.tile(jnp.array([pattern]), (rows, 1))
        _, logits = self._module.apply(variables, {**absent, **features}, stand_ins, present, method="fuse")
        return {m: x.astype(jnp.float32) for m, x in features.items()}, logits.astype(jnp.float32)
