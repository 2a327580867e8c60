"""Texts as token ids."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Text:
    """{"tokens": int32 [B, T], "length": int32 [B]}, tokenised by the host, as they are; in training, some words fewer.

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
            tokens, length = jax.vmap(self._augment)(raw["tokens"], raw["length"], keys)
            return {"tokens": tokens, "length": length}
        return raw

    def _augment(self, tokens: jax.Array, length: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One text [T]: what stays moves up, what is left out goes past the end."""
        position = jnp.arange(tokens.shape[0])
        marks = (position == 0) | (position == length - 1)
        kept = (position < length) & (marks | ~jax.random.bernoulli(key, self.drop, tokens.shape))
        return tokens[jnp.argsort(~kept, stable=True)], kept.sum(dtype=length.dtype)
