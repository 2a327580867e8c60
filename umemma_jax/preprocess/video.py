"""Frames: a few of those that a clip has, as images."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from umemma_jax.preprocess.image import Image
from umemma_jax.preprocess.ranges import check_positive

FRAMES = 1  # folded into a row's key, so that frames are drawn independently of what `Image` draws


@dataclasses.dataclass(frozen=True)
class Video(Image):
    """{"frames": uint8 [B, F, H, W, C], "count": int32 [B]} -> T frames, float32 [B, T, H', W', C].

    The first `count` frames of a row are divided into T equal parts, and each part gives one frame: any of its own in
    training, the middle one in evaluation. Where there are fewer than T, some come more than once.

    Source: Wang et al., 2016, arXiv 1608.00859 (temporal segment networks).

    Attributes:
      mean, std, crop, resized_crop, shift, rotation, scale, shear, flip: as in `Image`; what is random is the same for
        all frames of a row.
      frames: T.
    """

    frames: int = 3

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        super().__post_init__()
        check_positive(self, "frames")

    def __call__(self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw frames and their number -> float32 [B, T, H', W', C]; a row without frames gives frame 0 all the same.

        Raises UserError where `crop` is larger than H or W.
        """
        shape = (raw["count"].shape[0], self.frames)
        places = jax.vmap(self._draw)(keys) if train else jnp.full(shape, 0.5)
        frames = jax.vmap(self._sample)(raw["frames"], raw["count"], places)
        if train:
            keys = jnp.broadcast_to(keys[:, None], shape).reshape(-1)
        images = super().__call__(frames.reshape(-1, *frames.shape[2:]), keys, train)
        return images.reshape(*shape, *images.shape[1:])

    def _draw(self, key: jax.Array) -> jax.Array:
        """Where in its part each frame lies, [T] in [0, 1)."""
        return jax.random.uniform(jax.random.fold_in(key, FRAMES), (self.frames,))

    def _sample(self, frames: jax.Array, count: jax.Array, places: jax.Array) -> jax.Array:
        """[F, H, W, C] -> [T, H, W, C], given the places of `_draw`."""
        index = jnp.floor((jnp.arange(self.frames) + places) * count / self.frames).astype(jnp.int32)
        return frames[jnp.clip(index, 0, jnp.maximum(count - 1, 0))]
