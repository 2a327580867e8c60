"""Pictures whose values are not simply 0 to 255: what is black and what is white in them.

What the file states counts (how many bits a value has, the least and the largest value), unless values lie outside of
it. Otherwise the values tell: 0 is black, and white is the largest number of 8, 10, 12, 14, 16, 24 or 32 bits, the
fewest that hold them; of fractions up to 1 it is 1. Where there are negative values black and white are the least and
the largest one. A picture that would use less than an eighth of the brightness so is stretched to all of it.

Of 16 bits of a colour Pillow keeps the upper 8. Where these are few, as of 12 bits, FFmpeg reads the picture.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from numbers import Real
from typing import BinaryIO

import numpy as np
from PIL import Image

from umemma_jax import extras
from umemma_jax.data_prep.build.tasks import Unreadable

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_RANGES = ((340, 341), (280, 281))  # SMin- and SMaxSampleValue, Min- and MaxSampleValue
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2  # their values
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits that cameras, scanners and microscopes give a value
_FFMPEG_FORMS = {"PNG": "png_pipe", "TIFF": "tiff_pipe"}  # by Pillow's names
_SIXTEEN = re.compile(r"(\w+);16")  # in Pillow's names of what a decoder makes
_LARGEST = 65535  # of 16 bits
_FEW = 64  # of 256 values of the upper 8 bits
_LEAST_SHARE = 1 / 8  # of the brightness that a picture uses unless it is stretched
_ASIDE = 0.1  # % of the values that may become darker than black by that, and that may become brighter than white
_STRIP = 1 << 22  # pixels looked at together


def is_deep(image: Image.Image) -> bool:
    """Whether an opened file is such a picture."""
    return image.mode[0] in "IF" or (image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == _SIGNED)


def significant_bits(file: BinaryIO) -> int | None:
    """How many bits a value has by a PNG file's chunk sBIT, in grey or in red; None if it has none."""
    position = file.tell()  # from which Pillow goes on reading
    file.seek(8)
    while (header := file.read(8)) and header[4:] not in (b"sBIT", b"IDAT", b"IEND"):
        file.seek(int.from_bytes(header[:4], "big") + 4, os.SEEK_CUR)  # over its content and checksum
    bits = int.from_bytes(file.read(1), "big") if header[4:] == b"sBIT" else None
    file.seek(position)
    return bits


def colours_of_16_bits(image: Image.Image) -> str | None:
    """How Pillow calls the colours of an opened, not yet loaded file, if each has 16 bits; else None."""
    if image.mode not in ("RGB", "RGBA", "CMYK") or image.format not in _FFMPEG_FORMS:
        return None
    return next((found[1] for tile in image.tile if (found := _SIXTEEN.search(str(tile.args)))), None)


def is_dim(image: Image.Image) -> bool:
    """Whether the upper 8 bits of 16 have few values, in colours that are not fully transparent."""
    opacity = image.getchannel("A") if image.mode == "RGBA" else None
    levels = np.reshape(image.histogram(opacity), (-1, 256))[: 3 if opacity else None]
    return bool(levels.any() and not levels[:, _FEW:].any())


def to_8_bits(
    image: Image.Image, bits: int | None, shrink: Callable[[Image.Image], Image.Image]
) -> tuple[Image.Image, str]:
    """A picture in mode "L", and what was made of its values, for people.

    Args:
      image: loaded.
      bits: of a value, where the file states them elsewhere than in tags of TIFF.
      shrink: what scales pictures of mode "F" down.

    Raises:
      Unreadable: no pixel has a finite value.
    """
    low, high = _extrema(image)
    pixels = np.asarray(shrink(_to_float(image, low)), np.float64)
    black, white, said = _limits(pixels, low, high, image, bits)
    levels = _levels(pixels, black, white)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow sees to in 8 bits only
        levels = 255 - levels
    return Image.fromarray(levels), said


def colour_to_8_bits(file: BinaryIO, image: Image.Image, colours: str, bits: int | None) -> tuple[Image.Image, str]:
    """Likewise of a picture of 16 bits a colour, in the mode that it has, which is read from its file again.

    Opacity is of 16 bits, unless all of it lies below what is white: then it was stored like the colours.
    """
    with extras.needed("clips", "a picture of 16 bits a colour"):
        import av  # slow, and needed only here

    file.seek(0)
    with av.open(file, format=_FFMPEG_FORMS[image.format]) as source:
        # FFmpeg calls the four inks RGBA, and leaves them as they are.
        pixels = next(source.decode(video=0)).to_ndarray(format="rgb48le" if image.mode == "RGB" else "rgba64le")
    shades, opacity = (pixels[..., :3], pixels[..., 3:]) if image.mode == "RGBA" else (pixels, pixels[..., :0])
    visible = np.all(opacity > 0, axis=-1, keepdims=True)
    low, high = shades.min(where=visible, initial=_LARGEST), shades.max(where=visible, initial=0)
    step = 1 + math.isqrt(visible.size // _STRIP)
    sample = shades[::step, ::step][visible[::step, ::step, 0]]
    black, white, said = _limits(sample, float(low), float(high), image, bits)
    of_opacity = white if opacity.max(initial=0) <= white else _LARGEST
    values = np.arange(_LARGEST + 1)
    levels = [_levels(values, black, white)[shades], _levels(values, 0, of_opacity)[opacity]]
    mode = "RGBa" if colours == "RGBa" else image.mode  # multiplied by the opacity
    picture = Image.frombytes(mode, pixels.shape[1::-1], np.concatenate(levels, axis=-1).tobytes())
    return picture.convert(image.mode), said


def _limits(
    pixels: np.ndarray, low: float, high: float, image: Image.Image, bits: int | None
) -> tuple[float, float, str]:
    """What is black and white of values of which the least and the largest were `low` and `high`, and for people."""
    black, white, why = _range(image, bits, low, high)
    darkest, brightest = np.percentile(pixels, (_ASIDE, 100 - _ASIDE))
    if 0 < brightest - darkest < _LEAST_SHARE * (white - black):
        black, white, why = darkest, brightest, f"stretched, of {low:g} to {high:g}"
    return black, white, f"values from {black:g} to {white:g}, {why}"


def _levels(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """uint8: 0 for black, 255 for white."""
    return np.rint(255 * np.clip((values - black) / (white - black), 0, 1)).astype(np.uint8)


def _range(image: Image.Image, bits: int | None, low: float, high: float) -> tuple[float, float, str]:
    """What is black and white by the file or by its least and largest value, and why."""
    for black, white in _stated(image, bits):
        if black <= low and high <= white and black < white:
            return black, white, "as the file states"
    if low < 0:
        return low, max(high, low + 1), "as far as they reach"
    if high <= 1 and image.mode == "F":
        return 0, 1, "as fractions"
    held = int(high).bit_length()
    held = next((bits for bits in _DEPTHS if bits >= held), held)
    return 0, 2.0**held - 1, f"of {held} bits"


def _stated(image: Image.Image, bits: int | None) -> Iterator[tuple[float, float]]:
    """The ranges of values that a file states."""
    for tags in _RANGES:
        limits = [_tag(image, tag) for tag in tags]
        if None not in limits:
            yield float(limits[0]), float(limits[1])
    bits = bits or _tag(image, _BITS)
    if bits and bits % 8:  # 16 or 32 say how a value is stored, not what it means
        yield 0, 2.0**bits - 1


def _extrema(image: Image.Image) -> tuple[float, float]:
    """The least and the largest finite value."""
    low, high = math.inf, -math.inf
    for _, pixels in _strips(image):
        if len(finite := pixels[np.isfinite(pixels)]):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise Unreadable("no pixel has a finite value")
    return low, high


def _to_float(image: Image.Image, low: float) -> Image.Image:
    """In mode "F"; what is not finite becomes `low`."""
    found = Image.new("F", image.size)
    for corner, pixels in _strips(image):
        found.paste(Image.fromarray(np.where(np.isfinite(pixels), pixels, low).astype(np.float32)), corner)
    return found


def _strips(image: Image.Image) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The values of a picture in parts, each with its upper left corner: an array of all would take much memory."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        pixels = np.asarray(image.crop((0, top, width, min(height, top + rows))))
        if image.mode == "L":  # Pillow takes signed bytes for unsigned ones
            pixels = pixels.view(np.int8)
        elif image.mode == "I" and _tag(image, _SAMPLE_FORMAT) == _UNSIGNED:  # and 32 unsigned bits for signed ones
            pixels = pixels.view(np.uint32)
        yield (0, top), pixels


def _tag(image: Image.Image, tag: int) -> float | None:
    """A number that a TIFF file states, or the first of several; None if it does not."""
    value = getattr(image, "tag_v2", {}).get(tag)
    if isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, Real) else None
