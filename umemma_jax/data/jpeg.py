"""JPEG files to square arrays of pixels, and back.

libjpeg-turbo decodes (by simplejpeg, which releases the GIL), and where it can, it also shrinks: computing fewer
coefficients of each 8x8 block gives k/8 of the size for less work. Pillow resizes what is then not yet of the right
size, which costs more than decoding: a side of k/8 of the stored shorter side, or all of it, is read fastest.
"""

import io

import numpy as np
import simplejpeg
from PIL import Image

FRAMINGS = ("centre", "whole")
_COLOURSPACES = ("YCbCr", "RGB", "Gray")  # of the file; what is left are CMYK and YCCK
_CHECKED_SIDE = 1  # the smallest scale: all bytes are read, few pixels are made


def check(data: bytes) -> None:
    """Raises ValueError unless the bytes are a JPEG file, RGB or grey, that decodes from its first byte to its last."""
    if not isinstance(data, bytes):
        raise ValueError(f"{type(data).__name__} instead of the bytes of a JPEG file")
    _, _, colourspace = _header(data, _CHECKED_SIDE)
    if colourspace not in _COLOURSPACES:
        raise ValueError(f"a JPEG in {colourspace} instead of RGB or grey")
    _decode(data, _CHECKED_SIDE, min_factor=2)


def decode(data: bytes, side: int, framing: str = FRAMINGS[0]) -> np.ndarray:
    """A JPEG file as a square, uint8 [side, side, 3]; grey comes as three equal channels.

    The shorter side is resized to `side`; then the longer one is cut equally at both ends (framing "centre") or
    squeezed to the same length ("whole"). Shrinking averages over all pixels: whatever remains after the scaled
    decoding is resized by a triangle filter as wide as the step, as it is when enlarging. An orientation in Exif data
    is not looked at.

    Raises:
      ValueError: the bytes are not a JPEG file, or part of it is damaged.
    """
    height, width, _ = _header(data, side)
    if min(height, width) == side and (framing == "centre" or height == width):
        pixels = _decode(data, side, min_factor=1)
        top, left = (height - side) // 2, (width - side) // 2
        return pixels[top : top + side, left : left + side]
    # Scales between 1/2 and 1 cost more than the whole does, and leave as much to resize.
    pixels = _decode(data, side, min_factor=2)
    height, width, _ = pixels.shape
    kept = (min(height, width),) * 2 if framing == "centre" else (height, width)
    top, left = (height - kept[0]) / 2, (width - kept[1]) / 2
    box = (left, top, width - left, height - top)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box))


def encode(pixels: np.ndarray, quality: int = 95) -> bytes:
    """A JPEG file of uint8 pixels [H, W, 3] or, grey, [H, W]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _header(data: bytes, side: int) -> tuple[int, int, str]:
    """Height and width at the smallest scale with no less than `side` pixels each way, and the file's colour space."""
    try:
        return simplejpeg.decode_jpeg_header(data, side, side)[:3]
    except ValueError as error:
        raise ValueError(f"not a JPEG file, or its header is damaged ({error})") from error


def _decode(data: bytes, side: int, min_factor: float) -> np.ndarray:
    """uint8 [H, W, 3], scaled down by `min_factor` or more, if at all, to no less than `side` pixels each way."""
    return simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side, min_factor=min_factor)
