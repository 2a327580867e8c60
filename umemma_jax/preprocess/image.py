"""Pixels: cropped, moved and mirrored in training, standardised."""

import dataclasses

import jax
import jax.numpy as jnp

from umemma_jax.errors import UserError
from umemma_jax.preprocess.ranges import check_at_most, check_not_negative
from umemma_jax.preprocess.standardise import standardise

FARTHEST = 1e6  # pixels
CUT = 0  # folded into a row's key, so that the cut is drawn independently of the rest


@dataclasses.dataclass(frozen=True)
class Image:
    """uint8 [B, H, W, C] -> float32 [B, H', W', C], standardised per channel; H' = W' = `crop`, or H and W without.

    In training a row is first cut, then mapped by one random affine map, then mirrored. Evaluation cuts the centre.

    Attributes:
      mean: per channel, in units of pixel values (0 to 255).
      std: likewise.
      crop: side of the square that is cut out, pixels, at a random position in training; 0: all of the image.
      resized_crop: largest share of the image's area that training leaves out: cuts a rectangle of random area,
        aspect ratio (3/4 to 4/3) and position, and resizes it to H' x W'. 0.92 is usual for training from scratch
        (Szegedy et al., 2015, arXiv 1409.4842, section 6).
      shift: largest translation along each axis, pixels.
      rotation: largest rotation either way, degrees.
      scale: largest relative change of size, height and width on their own.
      shear: largest shear, pixels per pixel.
      flip: mirror left to right, half of the time.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 0
    resized_crop: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: bool = False

    STATED = ("mean", "std")

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        check_not_negative(self, "std", "crop", "resized_crop", "shift", "rotation", "scale", "shear")
        check_at_most(self, shift=FARTHEST, rotation=360, scale=10, shear=10)
        if self.resized_crop >= 1:
            raise ValueError("resized_crop: must be below 1, as something has to be left")

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw uint8 [B, H, W, C] -> float32 [B, H', W', C]. Raises UserError where `crop` is larger than H or W."""
        _, height, width, _ = raw.shape
        if self.crop > min(height, width):
            raise UserError(
                f"preprocess.crop: {self.crop} is larger than the images, {height} x {width}: "
                "lower it, or raise the input's length"
            )
        images = jax.vmap(self._augment)(raw, keys) if train else self._centre(raw)
        return standardise(images, self.mean, self.std)

    def _centre(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', C]."""
        if not self.crop:
            return images
        top, left = ((size - self.crop) // 2 for size in images.shape[1:3])
        return images[:, top : top + self.crop, left : left + self.crop]

    def _augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """[H, W, C] -> [H', W', C]."""
        if self.resized_crop:
            image = self._cut_and_resize(image, jax.random.fold_in(key, CUT))
        elif self.crop:
            image = self._cut(image, jax.random.fold_in(key, CUT))
        *draws, side, shift_y, shift_x = jax.random.uniform(key, (7,), minval=-1.0)
        if self.shift or self.rotation or self.scale or self.shear:
            image = affine(image.astype(jnp.float32), self._matrix(*draws), self.shift * jnp.array([shift_y, shift_x]))
        if self.flip:
            image = jnp.where(side > 0, image[:, ::-1], image)
        return image

    def _cut(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """A square of the given side, all positions equally likely."""
        height, width, channels = image.shape
        spare = jnp.array([height - self.crop, width - self.crop])
        top, left = jax.random.randint(key, (2,), 0, spare + 1)
        return jax.lax.dynamic_slice(image, (top, left, 0), (self.crop, self.crop, channels))

    def _cut_and_resize(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """A random rectangle, resized by a triangle filter that is as wide as the step where it shrinks."""
        height, width, channels = image.shape
        area, ratio, top, left = jax.random.uniform(key, (4,))
        area = (1 - self.resized_crop * area) * height * width
        ratio = (4 / 3) ** (2 * ratio - 1)
        size = jnp.minimum(jnp.sqrt(area * jnp.array([1 / ratio, ratio])), jnp.array([height, width]))
        corner = jnp.array([top, left]) * (jnp.array([height, width]) - size)
        shape = (self.crop or height, self.crop or width, channels)
        step = jnp.array(shape[:2]) / size
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), shape, (0, 1), step, -corner * step, method="linear"
        )

    def _matrix(self, angle: jax.Array, shear: jax.Array, zoom_y: jax.Array, zoom_x: jax.Array) -> jax.Array:
        """The affine map [2, 2] of draws in [-1, 1)."""
        angle = jnp.deg2rad(self.rotation * angle)
        rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        shear = jnp.array([[1.0, 0.0], [self.shear * shear, 1.0]])
        zoom = jnp.diag(1 + self.scale * jnp.array([zoom_y, zoom_x]))
        return jnp.linalg.multi_dot([rotation, shear, zoom], precision="highest")


def affine(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Looks up each pixel of [H, W, C] at `matrix @ (row, column) + shift`, bilinearly, 0 outside.

    Rows and columns are counted from the image's centre.
    """
    height, width, _ = image.shape
    centre = jnp.array([[(height - 1) / 2], [(width - 1) / 2]])
    pixels = jnp.indices((height, width), jnp.float32).reshape(2, -1) - centre
    source = jnp.matmul(matrix, pixels, precision="highest") + centre + shift[:, None]

    def look_up(channel: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(channel, list(source), order=1)

    return jax.vmap(look_up, in_axes=-1, out_axes=-1)(image).reshape(image.shape)
