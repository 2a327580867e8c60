"""Any image file as the bytes of a baseline JPEG: upright, RGB or grey, its shorter side at most so many pixels."""

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_prep.build.parallel import Unreadable
from data_prep.build.prep_report import Report
from umemma_jax.data import jpeg

QUALITY = 90  # of what is encoded anew
MAX_PIXELS = 100_000_000  # more are taken for a decompression bomb
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}  # of image files
NO_IMAGE = "not an image file, by its name (passed over)"
NO_NAME = "name is not UTF-8 (passed over)"
_BASELINE = 0xC0  # the JPEG marker SOF0; other frames are progressive, lossless or arithmetic-coded
_OTHER_FRAMES = {*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC}  # without tables of Huffman and arithmetic coding
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-fA-F]+>")  # in Pillow's messages
_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF tag and value


@dataclass(frozen=True)
class ToJpeg:
    """Turns an image file into JPEG bytes.

    A plain JPEG (baseline, RGB or grey, upright) that is not too large stays as it is, byte for byte. Everything else
    is decoded, turned upright, scaled down where it is too large, and encoded anew. Of an animation the first frame
    counts; what is transparent becomes white.

    Attributes:
      size: longest allowed shorter side, pixels.
    """

    size: int = 256

    def __call__(self, path: Path) -> bytes:
        """Reads a file.

        Raises:
          Unreadable: it cannot be opened, is no image, truncated, damaged, or has more than `MAX_PIXELS`.
        """
        try:
            return self.convert(path.read_bytes())
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    def convert(self, data: bytes) -> bytes:
        """Turns the content of a file into JPEG bytes; raises Unreadable as above."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about damaged metadata, and size, which is checked here
                return self._convert(data)
        except Unreadable:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            reason = " ".join(_ADDRESS.sub("", str(error)).split())
            raise Unreadable(f"{type(error).__name__}: {reason[:200]}") from error

    def value(self, data: bytes) -> bytes:
        """What the dataset's writer takes."""
        return data

    def _convert(self, data: bytes) -> bytes:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unreadable(f"{width}x{height} pixels, more than {MAX_PIXELS:,}")
            fits = min(width, height) <= self.size
            if fits and is_plain_jpeg(image, data):
                return data
            if not fits:
                # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size. Twice what is needed keeps the quality.
                image.draft(None, (2 * width * self.size // min(image.size), 2 * height * self.size // min(image.size)))
            image.load()
            return _encode(_shrink(_to_rgb_or_grey(_upright(image)), self.size))


def find_images(folder: Path, report: Report) -> Iterator[Path]:
    """Image files in the folders inside `folder`, sorted; hidden ones are passed over, other files reported."""
    for path in sorted(folder.glob("*/*")):
        if path.name.startswith(".") or path.parent.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES:
            report.add(NO_IMAGE, str(path))
        elif "\N{REPLACEMENT CHARACTER}" in str(path).encode(errors="surrogateescape").decode(errors="replace"):
            report.add(NO_NAME, str(path))
        else:
            yield path


def is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    """Whether an opened file can be stored as it is: a baseline JPEG, RGB or grey, upright, without any fault."""
    plain = image.format == "JPEG" and image.mode in ("RGB", "L") and _frame_marker(data) == _BASELINE
    if not plain or _orientation(image) != _UPRIGHT:
        return False
    try:
        jpeg.check(data)  # with the decoder of training, which is stricter than Pillow
    except ValueError:
        return False
    return True


def _frame_marker(data: bytes) -> int | None:
    """The marker of a JPEG's frame header, found from segment to segment (ITU-T T.81, annex B)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _BASELINE or marker in _OTHER_FRAMES:
            return marker
        fill_byte = marker == 0xFF
        at += 1 if fill_byte else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # damaged metadata do not make a picture unreadable
        return _UPRIGHT


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _orientation(image) != _UPRIGHT else image


def _to_rgb_or_grey(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as "RGB" or "L" (8 bits)."""
    if image.mode.startswith("I"):  # 16 bits, in files also as 32
        return Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.mode == "F":
        raise Unreadable("floating-point pixels, of which nobody knows what is white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode in ("L", "1"):
        return image.convert("L")
    return image.convert("RGB")


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """16-bit values, in any integer dtype, as uint8."""
    if pixels.min() < 0 or pixels.max() > 65535:
        raise Unreadable("32-bit pixels, of which nobody knows what is white")
    return np.rint(pixels / np.float32(257)).astype(np.uint8)


def _shrink(image: Image.Image, size: int) -> Image.Image:
    """Scales down to a shorter side of `size`, if it is longer."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, exif=b"", icc_profile=b"")
    return buffer.getvalue()
