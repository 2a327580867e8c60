"""Any image file as the bytes of a baseline JPEG: upright, RGB or grey, its shorter side at most so many pixels."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from umemma_jax.data import jpeg
from umemma_jax.data_prep.build.prep_report import DAMAGED, Report
from umemma_jax.data_prep.build.results import Noted
from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw import depth, limits
from umemma_jax.data_prep.raw.files import open_file

Image.MAX_IMAGE_PIXELS = None  # the size is checked here
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # profiles and metadata may be larger than 1 MB

QUALITY = 90  # of what is encoded anew
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}  # of image files
NO_IMAGE = "not an image file, by its name (passed over)"
NO_NAME = "name is not UTF-8 (passed over)"
SCALED = "picture of other than 8 bits a value (scaled to 8)"
_BASELINE = 0xC0  # the JPEG marker SOF0; other frames are progressive, lossless or arithmetic-coded
_OTHER_FRAMES = {*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC}  # without tables of Huffman and arithmetic coding
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # SOS and EOI
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-fA-F]+>")  # in Pillow's messages
_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF tag and value
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIF = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}  # brands
_LEAST_ROWS = 1 / 2  # share of a truncated picture's rows that makes it worth keeping
_HARMLESS = "extraneous bytes"  # in a JPEG file, as many cameras write them


@dataclass(frozen=True)
class ToJpeg:
    """Turns an image file into JPEG bytes.

    A plain JPEG (baseline, RGB or grey, upright) that is not too large stays as it is, byte for byte. Everything else
    is decoded, turned upright, scaled down where it is too large, and encoded anew. Of an animation the first frame
    counts; what is transparent becomes white.

    A JPEG that ends too early counts as far as its rows go, if that is half of them. Of a progressive one, where each
    scan adds detail to all rows, the complete scans count, if there is one.

    Attributes:
      size: longest allowed shorter side, pixels.
      max_pixels: a file of more is refused; None: `limits.PIXELS`.
    """

    size: int = 256
    max_pixels: int | None = None

    def __call__(self, path: Path) -> bytes | Noted:
        """Reads a file; what is damaged in it, and how values of other than 8 bits were taken, is noted.

        Raises:
          Unreadable: it cannot be opened, is no image, truncated, damaged, or beyond the limit.
        """
        with open_file(path) as file:
            return self._read(file)

    def convert(self, data: bytes) -> bytes | Noted:
        """Turns the content of a file into JPEG bytes; raises Unreadable as above."""
        return self._read(io.BytesIO(data))

    def value(self, data: bytes) -> bytes:
        """What the dataset's writer takes."""
        return data

    def _read(self, file: BinaryIO) -> bytes | Noted:
        with _decoding(file):
            return self._convert(file)

    def _convert(self, file: BinaryIO) -> bytes | Noted:
        with Image.open(file) as image:
            if fault := limits.too_many_pixels(*image.size, self.max_pixels or limits.PIXELS):
                raise Unreadable(fault)
            if image.format == "EPS":
                raise Unreadable("EPS, a program to be run: convert it to JPEG or PNG")
            damage = None
            if min(image.size) <= self.size:
                if (data := _plain_jpeg(image, file)) and (damage := _jpeg_fault(data)) is None:
                    return data
            else:
                # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size. Twice what is needed keeps the quality.
                image.draft(None, tuple(2 * side * self.size // min(image.size) for side in image.size))
            bits = depth.significant_bits(file) if image.format == "PNG" else None
            colours = depth.colours_of_16_bits(image)
            whole, truncation = _load(image, file)
            turn = _TURNS.get(_orientation(image))
            if colours and depth.is_dim(whole):
                whole, scaling = depth.colour_to_8_bits(file, image, colours, bits)
                picture, _ = self._in_8_bits(whole, bits)
            else:
                picture, scaling = self._in_8_bits(whole, bits)
        stored = _encode(picture if turn is None else picture.transpose(turn))
        if damage and _HARMLESS in damage:
            damage = None
        found = {DAMAGED: truncation or damage, SCALED: scaling}
        notes = {kind: note for kind, note in found.items() if note}
        return Noted(stored, notes) if notes else stored

    def _in_8_bits(self, image: Image.Image, bits: int | None) -> tuple[Image.Image, str | None]:
        """Scaled down in mode "RGB" or "L", and how values of other than 8 bits were taken."""
        if depth.is_deep(image):
            return depth.to_8_bits(image, bits, self._shrink)
        if image.has_transparency_data:
            shown = self._shrink(image if image.mode in ("RGBA", "LA") else image.convert("RGBA")).convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB"), None
        mode = "L" if image.mode in ("L", "1") else "RGB"
        return self._shrink(image if image.mode == mode else image.convert(mode)), None

    def _shrink(self, image: Image.Image) -> Image.Image:
        """Scales down to a shorter side of `size`, if it is longer."""
        shorter = min(image.size)
        if shorter <= self.size:
            return image
        width, height = (max(1, round(side * self.size / shorter)) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


@dataclass(frozen=True)
class ToPixels:
    """Turns an image file of one size into its pixels.

    Attributes:
      shape: [H, W, C], of 1 or 3 channels.
    """

    shape: tuple[int, int, int]

    def __call__(self, path: Path) -> bytes:
        """Reads a file. Raises Unreadable if it cannot be opened, is no image, damaged, or of another size."""
        with open_file(path) as file:
            return self._read(file)

    def convert(self, data: bytes) -> bytes:
        """Likewise of a file's content."""
        return self._read(io.BytesIO(data))

    def value(self, data: bytes) -> np.ndarray:
        """uint8 [H, W, C]."""
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    def _read(self, file: BinaryIO) -> bytes:
        height, width, channels = self.shape
        with _decoding(file), Image.open(file) as image:
            if image.size != (width, height):
                raise Unreadable(f"{image.width}x{image.height} pixels instead of {width}x{height}")
            return image.convert("L" if channels == 1 else "RGB").tobytes()


@contextlib.contextmanager
def _decoding(file: BinaryIO) -> Iterator[None]:
    """Turns whatever a decoder raises on a file into Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata
            yield
    except Unreadable:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        file.seek(0)
        if file.read(12)[8:] in _HEIF:
            raise Unreadable("HEIC, which Pillow does not read: convert it to JPEG or PNG") from error
        reason = " ".join(_ADDRESS.sub("", str(error)).split())
        raise Unreadable(f"{type(error).__name__}: {reason[:200]}") from error


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


def _plain_jpeg(image: Image.Image, file: BinaryIO) -> bytes | None:
    """The content of a baseline JPEG, RGB or grey, upright, which can be stored as it is unless it has a fault."""
    if image.format != "JPEG" or image.mode not in ("RGB", "L") or _orientation(image) != _UPRIGHT:
        return None
    if file.seek(0, io.SEEK_END) > limits.BYTES:
        return None
    file.seek(0)
    data = file.read()
    frame = _frame_header(data)
    return data if frame is not None and data[frame + 1] == _BASELINE else None


def _jpeg_fault(data: bytes) -> str | None:
    """What the decoder of training, which is stricter than Pillow, has against a JPEG file; None if it has nothing."""
    try:
        jpeg.check(data)
    except ValueError as error:
        return str(error)
    return None


def _load(image: Image.Image, file: BinaryIO) -> tuple[Image.Image, str | None]:
    """Decodes an opened file; of a truncated JPEG what there is, and what is missing.

    Raises:
      Unreadable: more is missing than `ToJpeg` allows.
      Exception: whatever a decoder raises.
    """
    try:
        image.load()
        return image, None
    except OSError:
        if image.format != "JPEG":
            raise
        if "progressive" in image.info:
            return _complete_scans(file)
        if not image.im:
            raise
    image.tile = []  # nothing more is to be decoded
    width, height = image.size
    _, _, _, rows = image.im.getbbox() or (0, 0, 0, 0)  # those that were not decoded are black
    fault = f"truncated: {rows} of {height} rows"
    if rows < _LEAST_ROWS * height:
        raise Unreadable(fault)
    return image.crop((0, 0, width, rows)), fault


def _complete_scans(file: BinaryIO) -> tuple[Image.Image, str]:
    """Decodes a truncated progressive JPEG but for its last scan. Raises Unreadable if there is no other."""
    file.seek(0)
    data = file.read(limits.BYTES)
    scans = data.count(_SCAN, _frame_header(data))
    fault = f"truncated in scan {scans} of a progressive JPEG"
    if scans < 2:
        raise Unreadable(fault)
    image = Image.open(io.BytesIO(data[: data.rindex(_SCAN)] + _END))
    image.load()
    return image, fault


def _frame_header(data: bytes) -> int | None:
    """Where a JPEG's frame header begins, found from segment to segment (ITU-T T.81, annex B)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _BASELINE or marker in _OTHER_FRAMES:
            return at
        fill_byte = marker == 0xFF
        at += 1 if fill_byte else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # damaged metadata do not make a picture unreadable
        return _UPRIGHT


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, exif=b"", icc_profile=b"")
    return buffer.getvalue()
