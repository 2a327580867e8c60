import io
import itertools
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, JpegImagePlugin, PngImagePlugin

from umemma_jax.data import jpeg
from umemma_jax.data_prep.build.prep_report import DAMAGED, Report
from umemma_jax.data_prep.build.results import Noted
from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw import photos
from umemma_jax.data_prep.raw.photos import ToJpeg

RED, GREEN, BLUE, WHITE = (220, 30, 40), (20, 200, 60), (30, 40, 210), (255, 255, 255)


def quadrants(width=60, height=40, colours=(RED, GREEN, BLUE, WHITE)):
    """A picture whose corners differ: top left, top right, bottom left, bottom right."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    w, h = width // 2, height // 2
    for colour, corner in zip(colours, ((0, 0), (w, 0), (0, h), (w, h)), strict=True):
        draw.rectangle((*corner, corner[0] + w, corner[1] + h), fill=colour)
    return image


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(result):
    """The stored picture, as training would see it before it is scaled."""
    data = result.data if isinstance(result, Noted) else result
    jpeg.check(data)
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    assert image.mode in ("RGB", "L")
    assert "progressive" not in image.info
    assert image.getexif().get(0x0112, 1) == 1
    return image


def corners(image):
    width, height = image.size
    pixels = np.asarray(image.convert("RGB"), int)
    return [pixels[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]


def assert_corners(data, colours=(RED, GREEN, BLUE, WHITE), size=(60, 40), tolerance=12):
    image = decoded(data)
    assert image.size == size
    np.testing.assert_allclose(corners(image), colours, atol=tolerance)


# --- what stays, byte for byte ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_plain_jpeg_stays(mode, subsampling):
    data = encoded(quadrants().convert(mode), "JPEG", subsampling=subsampling)
    assert ToJpeg(40).convert(data) == data


def test_upright_orientation_stays():
    data = encoded(quadrants(), "JPEG", exif=orientation(1))
    assert ToJpeg(40).convert(data) == data


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


# --- every kind of image ----------------------------------------------------------------------------------------------

# What a camera that was held so stores; https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, tag 274.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # to be turned 90 degrees clockwise when shown
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_turned_upright(value, form):
    assert_corners(ToJpeg().convert(encoded(quadrants().transpose(STORED[value]), form, exif=orientation(value))))


def test_turned_upright_and_scaled():
    image = quadrants(1200, 800).transpose(STORED[6])
    assert_corners(ToJpeg(100).convert(encoded(image, "JPEG", exif=orientation(6))), size=(150, 100))


def palette():
    return quadrants().quantize(8)


def cut_out(mode):
    """The bottom half transparent: black there, if transparency is not looked at."""
    image = quadrants().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 20, 60, 40))
    return image.convert(mode)


def transparent_palette():
    image = quadrants(colours=(RED, GREEN, BLUE, (0, 0, 0))).quantize(8)
    return encoded(image, "PNG", transparency=image.getpixel((50, 30)))


@pytest.mark.parametrize(
    "data",
    [
        encoded(quadrants(), "JPEG", progressive=True, quality=95),
        encoded(quadrants(), "JPEG", quality=95, keep_rgb=True),
        encoded(quadrants().convert("CMYK"), "JPEG", quality=95),
        encoded(quadrants().convert("CMYK"), "TIFF"),
        encoded(palette(), "PNG"),
        encoded(palette(), "GIF"),
        encoded(palette(), "BMP"),
        encoded(quadrants().convert("RGBA"), "PNG"),
        encoded(quadrants(), "WEBP", lossless=True),
        encoded(quadrants(), "PNG"),
        encoded(quadrants(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40))]),
        encoded(quadrants(), "PNG", save_all=True, append_images=[Image.new("RGB", (60, 40))]),
        encoded(quadrants(), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (60, 40))]),
        encoded(quadrants(), "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))]),
        encoded(quadrants().convert("YCbCr"), "TIFF"),
        encoded(quadrants().convert("LAB"), "TIFF"),
        transparent_palette(),
    ],
    ids=[
        "progressive", "jpeg_rgb", "jpeg_cmyk", "tiff_cmyk", "png_palette", "gif", "bmp_palette", "png_opaque_alpha",
        "webp", "png", "gif_animated", "png_animated", "webp_animated", "mpo", "tiff_ycbcr", "tiff_lab",
        "png_transparent_palette",
    ],
)  # fmt: skip
def test_colours_are_kept(data):
    assert_corners(ToJpeg().convert(data))


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_transparent_is_white(mode, form):
    top = corners(quadrants().convert("L" if mode == "LA" else "RGB"))[:2]
    options = {"lossless": True} if form == "WEBP" else {}
    assert_corners(ToJpeg().convert(encoded(cut_out(mode), form, **options)), (*top, WHITE, WHITE))


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "I"])
def test_grey(mode):
    grey = np.zeros((40, 60), np.uint8)
    grey[:, 30:] = 255 if mode == "1" else 90
    image = Image.fromarray(grey)
    if mode == "1":
        image = image.convert("1")
    if mode in ("I;16", "I"):
        image = Image.fromarray(grey.astype({"I;16": np.uint16, "I": np.int32}[mode]) * 257)
    bright = int(grey.max())
    form = "TIFF" if mode == "I" else "PNG"
    stored = ToJpeg().convert(encoded(image, form))
    assert isinstance(stored, Noted) == mode.startswith("I")
    assert decoded(stored).mode == "L"
    assert_corners(stored, [[value] * 3 for value in (0, bright, 0, bright)], tolerance=3)


# --- values of other than 8 bits --------------------------------------------------------------------------------------


def ramp(low, high, dtype, width=256):
    """Columns from `low` to `high`."""
    return np.repeat(np.linspace(low, high, width)[np.newaxis], 40, axis=0).astype(dtype)


def tiff(pixels, bits=None, photometric=1, **ranges):
    """A TIFF file of grey pixels with what it states of them, packed by hand; 12 bits are packed densely."""
    sample_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    if bits == 12:
        pairs = pixels.reshape(-1, 2).astype(int)
        first, second = pairs[:, 0], pairs[:, 1]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()
    height, width = pixels.shape
    entries = {256: width, 257: height, 258: bits or 8 * pixels.dtype.itemsize, 259: 1, 262: photometric, 273: 8}
    entries |= {277: 1, 278: height, 279: len(data), 339: sample_format}
    entries |= {{"least": 280, "largest": 281}[name]: value for name, value in ranges.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    return header + data + struct.pack("<H", len(entries)) + directory + bytes(4)


def with_significant_bits(png, bits):
    chunk = b"sBIT" + bytes([bits])
    return png[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


@pytest.mark.parametrize(
    ("data", "black", "white"),
    [
        (encoded(Image.fromarray(ramp(0, 65535, np.uint16)), "PNG"), 0, 255),
        (encoded(Image.fromarray(ramp(0, 4000, np.uint16)), "PNG"), 0, 255 * 4000 / 4095),  # 12 bits
        (encoded(Image.fromarray(ramp(0, 1000, np.uint16)), "TIFF"), 0, 255 * 1000 / 1023),  # 10 bits
        (encoded(Image.fromarray(ramp(0, 250, np.uint16)), "TIFF"), 0, 250),  # 8 bits in 16
        (encoded(Image.fromarray(ramp(0, 900, np.uint16)), "JPEG2000"), 0, 255 * 900 / 1023),
        (with_significant_bits(encoded(Image.fromarray(ramp(0, 1000, np.uint16)), "PNG"), 12), 0, 255 * 1000 / 4095),
        (with_significant_bits(encoded(Image.fromarray(ramp(0, 65535, np.uint16)), "PNG"), 12), 0, 255),  # scaled up
        (tiff(ramp(0, 1000, np.uint16), bits=12), 0, 255 * 1000 / 4095),
        (tiff(ramp(200, 1500, np.uint16), least=100, largest=1600), 17, 238),
        (tiff(ramp(0, 4095, np.uint16), photometric=0), 255, 0),  # white is zero
        (tiff(ramp(-1000, 3000, np.int16)), 0, 255),
        (tiff(ramp(0, 4000, np.int16)), 0, 255 * 4000 / 4095),
        (tiff(ramp(-100, 100, np.int8)), 0, 255),
        (tiff(ramp(0, 2**32 - 1, np.uint32)), 0, 255),
        (tiff(ramp(0, 60000, np.int32)), 0, 255 * 60000 / 65535),
        (tiff(ramp(0, 0.5, np.float32)), 0, 128),
        (tiff(ramp(0, 200, np.float32)), 0, 200),
        (tiff(ramp(-3, 5, np.float32)), 0, 255),
        (tiff(ramp(1e-3, 2e-3, np.float32)), 0, 255),  # stretched, as all that follow
        (encoded(Image.fromarray(ramp(31000, 33000, np.uint16)), "PNG"), 0, 255),
        (with_significant_bits(encoded(Image.fromarray(ramp(300, 420, np.uint16)), "PNG"), 255), 0, 255),
    ],
)  # fmt: skip
def test_values_of_other_than_8_bits(data, black, white):
    result = ToJpeg().convert(data)
    assert list(result.notes) == [photos.SCALED] and result.notes[photos.SCALED].startswith("values from ")
    found = np.asarray(decoded(result), int)
    np.testing.assert_allclose([found[:, 1].mean(), found[:, -2].mean()], [black, white], atol=4)
    assert len(np.unique(found)) > 50


def colour_ramp(white, form):
    """16 bits a colour, red rising to `white` to the right, green to the left, as FFmpeg writes it."""
    red = ramp(0, white, np.uint16)
    pixels = np.ascontiguousarray(np.stack([red, red[:, ::-1], np.full_like(red, white // 2)], axis=-1))
    pixel_format = {"png": "rgb48be", "tiff": "rgb48le"}[form]
    encoder = av.CodecContext.create(form, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 256, 40, pixel_format, Fraction(1)
    frame = av.VideoFrame.from_ndarray(pixels, "rgb48le").reformat(format=pixel_format)
    return b"".join(bytes(packet) for part in (frame, None) for packet in encoder.encode(part))


@pytest.mark.parametrize("form", ["png", "tiff"])
@pytest.mark.parametrize(("white", "levels"), [(65535, 255), (4000, 255 * 4000 / 4095), (1000, 255 * 1000 / 1023)])
def test_16_bits_a_colour(white, levels, form):
    result = ToJpeg().convert(colour_ramp(white, form))
    found = np.asarray(decoded(result), int)[20]
    expected = [[0, levels, levels / 2], [levels, 0, levels / 2]]
    np.testing.assert_allclose(found[[1, -2]], expected, atol=20)  # a JPEG's colours are coarse
    assert len(np.unique(found[:, 0])) > 100
    assert isinstance(result, Noted) == (white < 65535)


def stored_16(pixels, form, photometric=2, extra=None):
    """PNG or TIFF of uint16 [H, W, 2 or 4], packed by hand."""
    height, width, channels = pixels.shape
    if form == "png":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 4: 6}[channels], 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    data = pixels.astype("<u2").tobytes()
    entries = {256: width, 257: height, 259: 1, 262: photometric, 273: 8, 277: channels, 278: height, 279: len(data)}
    entries |= {} if extra is None else {338: extra}
    end = 8 + len(data)
    directory = [(258, 3, channels, end)] + [(tag, 4, 1, value) for tag, value in entries.items()]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(directory))
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    return (
        b"II*\0"
        + struct.pack("<I", end + len(bits))
        + data
        + bits
        + struct.pack("<H", len(directory))
        + packed
        + bytes(4)
    )


def rising(white, channels):
    """uint16 [40, 256, channels - 1]: the first rises to `white` to the right, the second to the left."""
    up = ramp(0, white, np.uint16)
    return np.stack([up, up[:, ::-1], np.full_like(up, white // 2)][: channels - 1], axis=-1)


@pytest.mark.parametrize("opaque", [65535, 4095])
@pytest.mark.parametrize("form", ["png", "tiff"])
def test_16_bits_with_transparency(form, opaque):
    """12 bits of 16, what is transparent becomes white, and what it hides does not count."""
    opacity = np.full((40, 256, 1), opaque, np.uint16)
    opacity[20:] = 0
    pixels = np.concatenate([rising(4095, 4), opacity], axis=-1)
    pixels[20:, :, :3] = 65535
    result = ToJpeg().convert(stored_16(pixels, form, extra=2 if form == "tiff" else None))
    assert result.notes == {photos.SCALED: "values from 0 to 4095, of 12 bits"}
    found = np.asarray(decoded(result), int)
    np.testing.assert_allclose(found[8, [1, -2]], [[0, 255, 128], [255, 0, 128]], atol=20)
    assert found[30].min() > 245


def test_16_bits_of_grey_with_transparency():
    opacity = np.full((40, 256, 1), 65535, np.uint16)
    opacity[20:] = 0
    result = ToJpeg().convert(stored_16(np.concatenate([rising(1023, 2), opacity], axis=-1), "png"))
    found = np.asarray(decoded(result), int)
    np.testing.assert_allclose(found[8, [1, 128, -2]].mean(axis=-1), [0, 128, 254], atol=6)
    assert found[30].min() > 245


def test_16_bits_multiplied_by_their_opacity():
    opacity = np.full((40, 256, 1), 32768, np.uint16)
    pixels = np.concatenate([rising(4095, 4) // 2, opacity], axis=-1)
    found = np.asarray(decoded(ToJpeg().convert(stored_16(pixels, "tiff", extra=1))), int)
    np.testing.assert_allclose(found[8, [1, -2]], [[128, 255, 192], [255, 128, 192]], atol=20)


def test_16_bits_of_ink():
    pixels = np.concatenate([rising(4095, 4), np.zeros((40, 256, 1), np.uint16)], axis=-1)
    result = ToJpeg().convert(stored_16(pixels, "tiff", photometric=5))
    found = np.asarray(decoded(result), int)
    np.testing.assert_allclose(found[8, [1, -2]], [[255, 0, 128], [0, 255, 128]], atol=20)
    assert list(result.notes) == [photos.SCALED]


@pytest.mark.parametrize("hidden", [0, 65535])
def test_16_bits_of_which_nothing_shows(hidden):
    pixels = np.full((8, 8, 4), hidden, np.uint16)
    pixels[..., 3] = 0
    assert np.asarray(decoded(ToJpeg().convert(stored_16(pixels, "png")))).min() == 255


def test_a_hot_pixel_does_not_darken_all_others():
    pixels = ramp(300, 900, np.uint16)
    pixels[5, 7] = 65535
    found = np.asarray(decoded(ToJpeg().convert(encoded(Image.fromarray(pixels), "PNG"))), int)
    assert found[20, 250] - found[20, 5] > 200


def test_what_is_not_finite_is_black():
    pixels = ramp(10, 20, np.float32)
    pixels[:, :20], pixels[0, 30], pixels[0, 31] = np.nan, np.inf, -np.inf
    found = np.asarray(decoded(ToJpeg().convert(tiff(pixels))), int)
    assert found[:, :18].max() < 10 and found[:, -1].min() > 245
    with pytest.raises(Unreadable, match="no pixel has a finite value"):
        ToJpeg().convert(tiff(np.full((8, 8), np.nan, np.float32)))


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_one_value_everywhere(value):
    result = ToJpeg().convert(tiff(np.full((8, 8), value, np.uint16)))
    assert np.unique(decoded(result)).tolist() == [{0: 0, 7: 7, 65535: 255}[value]]


def test_scaled_down_and_to_8_bits():
    found = decoded(ToJpeg(100).convert(encoded(Image.fromarray(ramp(0, 4095, np.uint16, 1000)), "PNG")))
    assert found.size == (1000, 40)
    found = decoded(ToJpeg(20).convert(encoded(Image.fromarray(ramp(0, 4095, np.uint16, 1000)), "PNG")))
    assert found.size == (500, 20)
    np.testing.assert_allclose(np.asarray(found, float).mean(axis=0), np.linspace(0, 255, 500), atol=3)


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [((600, 400), (150, 100)), ((400, 600), (100, 150)), ((101, 101), (100, 100)), ((3000, 101), (2970, 100))],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_shorter_side(before, after, form):
    assert_corners(ToJpeg(100).convert(encoded(quadrants(*before), form)), size=after)


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 300), (100, 100), (30, 100)])
def test_small_ones_are_not_enlarged(size):
    assert decoded(ToJpeg(100).convert(encoded(Image.new("RGB", size), "PNG"))).size == size


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_scaled_like_a_plain_resize(form):
    """DCT-scaled decoding and box reduction must not show."""
    y, x = np.mgrid[:1000, :1500]
    waves = 128 + 50 * np.sin(x / 40) + 50 * np.sin(y / 25 + x / 90)
    image = Image.fromarray(waves.astype(np.uint8))
    expected = np.asarray(image.resize((150, 100), Image.Resampling.LANCZOS), float)
    found = decoded(ToJpeg(100).convert(encoded(image, form, **({"quality": 95} if form == "JPEG" else {}))))
    assert np.abs(np.asarray(found, float) - expected).mean() < 1


def test_large_jpegs_are_not_decoded_in_full(monkeypatch):
    sizes = []
    load = JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda image: sizes.append(image.size) or load(image))
    ToJpeg(100).convert(encoded(quadrants(1600, 1600), "JPEG"))
    assert sizes[0] == (200, 200)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [60, 300], ids=["stored as it is", "scaled"])
@pytest.mark.parametrize(
    ("form", "share"),
    [
        *(("JPEG", share) for share in (0.01, 0.3)),
        *((form, share) for form in ("PNG", "GIF", "WEBP", "TIFF", "BMP") for share in (0.0, 0.01, 0.3, 0.5, 0.9)),
    ],
)
def test_truncated(side, form, share):
    noise = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(Unreadable):
        ToJpeg(100).convert(data[: int(share * len(data))])


@pytest.mark.parametrize("side", [60, 300], ids=["not scaled", "scaled"])
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_truncated_jpeg_counts_as_far_as_it_goes(side, share):
    noise = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=95)
    to_jpeg = ToJpeg(100)
    whole, cut = to_jpeg.convert(data), to_jpeg.convert(data[: int(share * len(data))])
    assert "truncated: " in cut.notes[DAMAGED]
    (width, height), (_, all_rows) = decoded(cut).size, decoded(whole).size
    assert (width >= min(side, 100)) and (share - 0.25) * all_rows <= height
    if side == 60:
        found, expected = (np.asarray(decoded(result), int)[: height - 8] for result in (cut, whole))
        assert np.abs(found - expected).mean() < 8  # encoded twice


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_truncated_progressive_jpeg_counts_from_its_first_scan_on(mode):
    picture = quadrants(160, 120).convert(mode)
    data = encoded(picture, "JPEG", progressive=True, quality=90)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for number, (start, end) in enumerate(itertools.pairwise(scans), start=1):
        cut = data[: (start + end) // 2]
        fault = f"truncated in scan {number} of a progressive JPEG"
        if number == 1:
            with pytest.raises(Unreadable, match=fault):
                ToJpeg().convert(cut)
            continue
        result = ToJpeg().convert(cut)
        assert result.notes == {DAMAGED: fault}
        found = decoded(result)
        assert found.size == (160, 120)
        np.testing.assert_allclose(corners(found), corners(picture), atol=60)  # the more scans, the finer
    assert not isinstance(ToJpeg().convert(data), Noted)


@pytest.mark.parametrize("data", [b"", b"<html>404 Not Found</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_no_image(data):
    with pytest.raises(Unreadable, match="cannot identify image file"):
        ToJpeg().convert(data)


def test_reason_is_one_short_line():
    with pytest.raises(Unreadable) as error:
        ToJpeg().convert(b"no image")
    assert str(error.value) == "UnidentifiedImageError: cannot identify image file"


def test_decompression_bombs():
    header = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    for side in (20_000, 60_000):
        header[16:24] = side.to_bytes(4, "big") * 2
        header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
        with pytest.raises(Unreadable, match="pixels"):
            ToJpeg().convert(bytes(header))


def test_size_is_a_matter_of_the_limit():
    data = encoded(quadrants(60, 40), "PNG")
    with pytest.raises(Unreadable, match="60x40 pixels, more than --max-pixels=2,399"):
        ToJpeg(max_pixels=2399).convert(data)
    assert_corners(ToJpeg(max_pixels=2400).convert(data))


MEASURED = """
import resource, sys
from pathlib import Path
from umemma_jax.data_prep.raw.photos import ToJpeg
def most():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ToJpeg()(Path(sys.argv[1]))
before = most()
ToJpeg()(Path(sys.argv[2]))
print(most() - before)
"""


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F", "CMYK"])
def test_memory_for_each_pixel(tmp_path, mode):
    """As docs/own_data.md states it: a tiny file can hold many pixels."""
    form = "TIFF" if mode in ("F", "CMYK") else "PNG"
    options = {"compression": "tiff_lzw"} if form == "TIFF" else {}
    if mode == "P":
        options["transparency"] = 0
    for name, side in (("small", 16), ("large", 4000)):
        Image.new(mode, (side, side)).save(tmp_path / name, form, **options)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "small"), str(tmp_path / "large")]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken < 10 * 4000**2


def test_heic_and_eps_are_named():
    with pytest.raises(Unreadable, match="HEIC, which Pillow does not read: convert it"):
        ToJpeg().convert(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(Unreadable, match="EPS, a program to be run"):
        ToJpeg().convert(encoded(quadrants(), "EPS"))


def test_files(tmp_path):
    data = encoded(quadrants(), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(data)
    assert ToJpeg()(tmp_path / "photo.jpg") == data
    with pytest.raises(Unreadable, match="No such file"):
        ToJpeg()(tmp_path / "absent.jpg")
    with pytest.raises(Unreadable, match="a directory instead of a file"):
        ToJpeg()(tmp_path)


# --- damage that does not matter --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # from reading it back here
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_metadata(exif):
    assert_corners(ToJpeg().convert(encoded(quadrants(), "JPEG", exif=exif)))


def test_large_metadata():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    profile = np.random.default_rng(0).bytes(3_000_000)
    assert_corners(ToJpeg().convert(encoded(quadrants(), "PNG", pnginfo=text)))
    for form in ("PNG", "JPEG", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        assert_corners(ToJpeg().convert(encoded(quadrants(), form, icc_profile=profile, **options)))


def test_jpeg_that_training_would_refuse_is_encoded_anew():
    """Stray bytes between segments: Pillow's decoder passes over them, that of training does not."""
    data = encoded(quadrants(), "JPEG")
    stray = data[:-2] + b"\0" * 100 + data[-2:]
    with pytest.raises(ValueError):
        jpeg.check(stray)
    stored = ToJpeg().convert(stray)
    assert stored != stray
    assert_corners(stored)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_random_damage_gives_a_picture_or_a_reason(form):
    data = encoded(quadrants(), form)
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 8)):
            damaged[at] = rng.integers(256)
        try:
            decoded(ToJpeg(20).convert(bytes(damaged)))
        except Unreadable as reason:
            assert "\n" not in str(reason)
            assert len(str(reason)) < 300


def test_finds_images(tmp_path):
    names = (
        "b/2.JPG",
        "b/1.jpeg",
        "a/1.png",
        "a/.hidden.jpg",
        ".cache/1.jpg",
        "a/Thumbs.db",
        "top.jpg",
        "a/\udce9.jpg",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    report = Report()
    assert [str(path.relative_to(tmp_path)) for path in photos.find_images(tmp_path, report)] == [
        "a/1.png", "b/1.jpeg", "b/2.JPG",
    ]  # fmt: skip
    assert (report.count(photos.NO_IMAGE), report.count(photos.NO_NAME)) == (1, 1)
