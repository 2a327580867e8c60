"""Texts as token ids."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Text:
    """{"tokens": int32 [B, T], "length": int32 [B]}, tokenised by the host, as they are; in training, some words fewer.

    Of n-grams with their "weights" float32 [B, T], likewise.

    Attributes:
      drop: share of the tokens left out, but for the first and the last, which mark start and end.
    """

    drop: float = 0.0

    STATED = ()

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop: must be in [0, 1), got {self.drop}")

    def __call__(
        self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False
    ) -> Mapping[str, jax.Array]:
        """Raw tokens and lengths -> the same."""
        if train and self.drop:
            return jax.vmap(self._augment)(raw, keys)
        return raw

    def _augment(self, text: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """One text [T]: what stays moves up, what is left out goes past the end."""
        length, position = text["length"], jnp.arange(text["tokens"].shape[0])
        marks = (position == 0) | (position == length - 1)
        kept = (position < length) & (marks | ~jax.random.bernoulli(key, self.drop, position.shape))
        order = jnp.argsort(~kept, stable=True)
        moved = {name: x[order] for name, x in text.items() if name != "length"}
        return {**moved, "length": kept.sum(dtype=length.dtype)}
