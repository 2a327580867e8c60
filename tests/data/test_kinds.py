"""Values to bytes to batches, kind by kind."""

import dataclasses

import numpy as np
import pytest

from umemma_jax.data import jpeg
from umemma_jax.data.kinds import UNSEEN, Modality, NumericCodec, codec, stores_list, takes_tokenizer
from umemma_jax.data.tokenizer import Tokenizer

IMAGE = Modality("image", "raw", shape=(2, 3, 1))
AUDIO = Modality("audio", "pcm_s16le", sample_rate=8000, max_samples=6)
TABLE = Modality("tabular", "float32", shape=(4,))
TEXT = Modality("text", "utf-8")
JPEG = Modality("image", "jpeg")
VIDEO = Modality("video", "jpeg", frame_rate=2.0, max_frames=3)


def photos(count: int) -> list[bytes]:
    """JPEG files of a smooth ramp each, all of other sizes."""
    ramps = [np.linspace(0, 255, (40 + i) * (30 + 9 * i) * 3).reshape(40 + i, -1, 3) for i in range(count)]
    return [jpeg.encode(ramp.astype(np.uint8)) for ramp in ramps]


def test_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 1), np.uint8)
    batch = codec(IMAGE).decode([codec(IMAGE).encode(image) for image in images])
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, images)


def test_a_missing_number_is_nan():
    value = np.array([0, np.nan, 2, 3], np.float32)
    found = codec(TABLE).decode([codec(TABLE).encode(value), None])
    np.testing.assert_array_equal(found, [value, np.zeros(4)])


def test_tabular():
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    batch = codec(TABLE).decode([codec(TABLE).encode(row) for row in rows])
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, rows)


CATEGORIES = dataclasses.replace(
    TABLE, columns=("a", "b", "c", "d"), levels={"b": {"x": 5, "y": 2}, "d": {}}, quantiles=((0.0, 1.0), (), (), ())
)


def test_categories_are_the_places_of_their_levels():
    rows = np.array([[0.5, 1, 0, np.nan], [np.nan, 0, np.nan, UNSEEN], [0, UNSEEN, 2, 0]], np.float32)
    store = codec(CATEGORIES)
    np.testing.assert_array_equal(store.decode([store.encode(row) for row in rows]), rows)
    np.testing.assert_array_equal(store.decode([None]), np.zeros((1, 4)))
    np.testing.assert_array_equal(store.to_positions(rows[0]), [[0.5, 0, 0, np.nan]])
    assert CATEGORIES.level_counts == (None, (5, 2), None, ())
    assert CATEGORIES.level_names == {"b": ("x", "y"), "d": ()}


@pytest.mark.parametrize("place", [2, -2, 0.5])
def test_what_is_no_place_of_a_level(place: float):
    row = np.array([0, place, 0, 0], np.float32)
    with pytest.raises(ValueError, match="a category that is no level's place"):
        codec(CATEGORIES).encode(row)
    with pytest.raises(ValueError, match="a category that is no level's place"):
        codec(CATEGORIES).decode([row.tobytes()])


@pytest.mark.parametrize("length", [None, 1, 4, 6, 9])
def test_audio_is_cut_or_padded(length: int | None):
    waves = [np.arange(1, n + 1, dtype=np.int16) * -1000 for n in (1, 4, 6)]
    batch = codec(AUDIO, length).decode([codec(AUDIO).encode(wave) for wave in waves])
    samples = length or 6
    assert batch["samples"].dtype == np.int16
    assert batch["length"].dtype == np.int32
    expected = np.zeros((3, samples), np.int16)
    for row, wave in zip(expected, waves, strict=True):
        row[: min(len(wave), samples)] = wave[:samples]
    np.testing.assert_array_equal(batch["samples"], expected)
    np.testing.assert_array_equal(batch["length"], np.minimum([1, 4, 6], samples))


def test_jpeg_images_of_any_size_become_squares():
    files = photos(3)
    stored = [codec(JPEG).encode(file) for file in files]
    assert stored == files
    batch = codec(JPEG, 24).decode([stored[0], None, *stored[1:]])
    assert (batch.shape, batch.dtype) == ((4, 24, 24, 3), np.uint8)
    np.testing.assert_array_equal(batch[[0, 2, 3]], [jpeg.decode(file, 24) for file in files])
    assert not batch[1].any()


def test_jpeg_statistics_are_of_squares_of_one_size():
    store = codec(JPEG)
    for file in photos(3):
        positions = store.to_positions(file)
        assert positions.shape == (64 * 64, 3)
        np.testing.assert_array_equal(store.from_positions(positions), jpeg.decode(file, 64))
    assert store.measured(photos(1)[0]) == {}


@pytest.mark.parametrize("side", [64, 100])
def test_mean_of_jpeg_images_as_a_value(side: int):
    store = codec(JPEG, side)
    mean = store.from_positions(np.mean([store.to_positions(file) for file in photos(3)], axis=0, dtype=np.float32))
    (square,) = store.decode([store.encode(store.from_mean(mean))])
    expected = np.mean([jpeg.decode(file, side) for file in photos(3)], axis=0)
    assert np.abs(square - expected).mean() < 3


def test_video_is_padded_to_the_largest_number_of_frames():
    files = photos(4)
    stored = [codec(VIDEO).encode(value) for value in (files[:1], tuple(files[1:4]))]
    assert stored == [files[:1], files[1:4]]
    batch = codec(VIDEO, 24).decode([stored[0], None, stored[1]])
    assert (batch["frames"].shape, batch["frames"].dtype) == ((3, 3, 24, 24, 3), np.uint8)
    assert batch["count"].dtype == np.int32
    np.testing.assert_array_equal(batch["count"], [1, 0, 3])
    pixels = [jpeg.decode(file, 24) for file in files]
    np.testing.assert_array_equal(batch["frames"][0, 0], pixels[0])
    np.testing.assert_array_equal(batch["frames"][2], pixels[1:4])
    assert not batch["frames"][0, 1:].any()
    assert not batch["frames"][1].any()


def test_frames_are_framed_as_images():
    wide = jpeg.encode(np.tile(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], (30, 1, 3)))
    for framing in ("centre", "whole"):
        modality = Modality("video", "jpeg", frame_rate=1, max_frames=1, framing=framing)
        frames = codec(modality, 30).decode([[wide]])["frames"]
        np.testing.assert_array_equal(frames[0, 0], jpeg.decode(wide, 30, framing))


def test_statistics_of_video_are_those_of_its_frames():
    store, files = codec(VIDEO), photos(3)
    positions = store.to_positions(files)
    np.testing.assert_array_equal(positions, [codec(JPEG).to_positions(file) for file in files])
    assert store.measured(files) == {"max_frames": 3}


def test_mean_of_video_as_a_value_is_one_frame():
    store = codec(VIDEO, 64)
    mean = store.from_positions(store.to_positions(photos(3)).mean(axis=0))
    batch = store.decode([store.encode(store.from_mean(mean))])
    np.testing.assert_array_equal(batch["count"], [1])
    expected = np.mean([jpeg.decode(file, 64) for file in photos(3)], axis=0)
    assert np.abs(batch["frames"][0, 0] - expected).mean() < 3


def test_text_is_stored_as_it_is_and_tokenised_when_read(tokenizer: Tokenizer):
    texts = ["Red shoes, é", "", "blue", "red " * 9]
    stored = [codec(TEXT).encode(text) for text in texts]
    assert stored == [text.encode() for text in texts]
    batch = codec(TEXT, 7, tokenizer).decode(stored)
    assert batch["tokens"].dtype == batch["length"].dtype == np.int32
    np.testing.assert_array_equal(
        batch["tokens"],
        [[2, 4, 6, 7, 0, 8, 3], [2, 3, 1, 1, 1, 1, 1], [2, 5, 3, 1, 1, 1, 1], [2, 4, 4, 4, 4, 4, 3]],
    )
    np.testing.assert_array_equal(batch["length"], [7, 2, 3, 7])


def test_absent_text_is_zero_and_the_empty_one_is_not(tokenizer: Tokenizer):
    batch = codec(TEXT, 3, tokenizer).decode([None, b"", None, b"blue"])
    np.testing.assert_array_equal(batch["tokens"], [[0, 0, 0], [2, 3, 1], [0, 0, 0], [2, 5, 3]])
    np.testing.assert_array_equal(batch["length"], [0, 2, 0, 3])
    batch = codec(TEXT, 3, tokenizer).decode([None, None])
    assert (batch["tokens"].shape, batch["tokens"].dtype) == ((2, 3), np.int32)
    assert not batch["tokens"].any()
    assert not batch["length"].any()


def test_one_call_of_the_tokenizer_for_a_batch(tokenizer: Tokenizer, monkeypatch):
    calls = []
    monkeypatch.setattr(
        Tokenizer,
        "encode",
        lambda self, texts, length, encode=Tokenizer.encode: calls.append(list(texts)) or encode(self, texts, length),
    )
    codec(TEXT, 3, tokenizer).decode([b"a", None, b"b"])
    assert calls == [["a", "b"]]


def test_text_has_no_statistics():
    assert not isinstance(codec(TEXT), NumericCodec)
    for modality in (IMAGE, AUDIO, TABLE, JPEG, VIDEO):
        assert isinstance(codec(modality), NumericCodec)


def test_empty_text_stands_in_for_a_mean(tokenizer: Tokenizer):
    store = codec(TEXT, 4, tokenizer)
    batch = store.decode([store.encode(store.from_mean(None))])
    np.testing.assert_array_equal(batch["tokens"], [[2, 3, 1, 1]])


@pytest.mark.parametrize("modality", [IMAGE, AUDIO, TABLE, JPEG, VIDEO])
def test_unknown_mean(modality: Modality):
    with pytest.raises(ValueError, match="no mean is known"):
        codec(modality).from_mean(None)


def test_absent_is_zero():
    image = np.full((2, 3, 1), 7, np.uint8)
    batch = codec(IMAGE).decode([None, image.tobytes(), None])
    np.testing.assert_array_equal(batch[1], image)
    assert not batch[[0, 2]].any()
    batch = codec(AUDIO).decode([None, b"\1\2"])
    np.testing.assert_array_equal(batch["samples"], [[0] * 6, [0x0201, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["length"], [0, 1])
    assert codec(TABLE).decode([None, None]).shape == (2, 4)


def test_batches_can_be_written_to(tokenizer: Tokenizer):
    codec(TEXT, 3, tokenizer).decode([None])["tokens"][:] = 1
    codec(IMAGE).decode([None])[:] = 1
    codec(JPEG, 4).decode([None])[:] = 1
    codec(VIDEO, 4).decode([None])["frames"][:] = 1
    codec(AUDIO).decode([None])["samples"][:] = 1
    codec(TABLE).decode([None])[:] = 1


@pytest.mark.parametrize(
    ("modality", "mean", "value"),
    [
        (IMAGE, np.linspace(0.4, 254.9, 6).reshape(2, 3, 1), [[[0], [51], [102]], [[153], [204], [255]]]),
        (AUDIO, np.array([-1.6, -0.4, 0.4, 32766.8]), [-2, 0, 0, 32767]),
        (TABLE, np.array([0.5, -1.25, 0, 3]), [0.5, -1.25, 0, 3]),
    ],
)
def test_mean_as_a_value(modality: Modality, mean: np.ndarray, value: list):
    got = codec(modality).from_mean(mean.astype(np.float32))
    np.testing.assert_array_equal(got, value)
    codec(modality).encode(got)


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::-1]])
def test_views_are_stored_as_they_look(view):
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)[view]
    np.testing.assert_array_equal(codec(IMAGE).decode([codec(IMAGE).encode(image)])[0], image)


@pytest.mark.parametrize(
    ("modality", "value", "message"),
    [
        (IMAGE, np.zeros((2, 3, 1)), "float64 instead of a NumPy array of uint8"),
        (IMAGE, [[1, 2, 3]], "list instead of a NumPy array of uint8"),
        (IMAGE, np.zeros((3, 2, 1), np.uint8), r"shape \(3, 2, 1\) instead of \(2, 3, 1\)"),
        (AUDIO, np.zeros(5, np.float32), "float32 instead of a NumPy array of int16"),
        (AUDIO, np.zeros((5, 2), np.int16), r"shape \(5, 2\)"),
        (AUDIO, np.zeros(0, np.int16), r"shape \(0,\)"),
        (AUDIO, np.zeros(5, ">i2"), "instead of a NumPy array of int16"),
        (TABLE, np.zeros(4), "float64 instead of a NumPy array of float32"),
        (TABLE, np.array([0, 1, np.inf, 3], np.float32), "infinite"),
        (TABLE, np.full(4, np.nan, np.float32), "all numbers are missing: leave it out"),
        (JPEG, np.zeros((8, 8, 3), np.uint8), "ndarray instead of the bytes of a JPEG file"),
        (JPEG, b"GIF89a", "not a JPEG file"),
        (VIDEO, [], "an empty one instead of a list of JPEG files"),
        (VIDEO, photos(1)[0], "bytes instead of a list of JPEG files"),
        (VIDEO, [*photos(1), b"GIF89a"], "frame 1: not a JPEG file"),
        (VIDEO, [photos(1)[0][:-100]], "frame 0: Premature end of JPEG file"),
        (TEXT, b"bytes", "bytes instead of str"),
        (TEXT, "half an emoji \ud83d", "surrogates not allowed"),
    ],
)
def test_wrong_values(modality: Modality, value, message: str):
    with pytest.raises(ValueError, match=message):
        codec(modality).encode(value)


@pytest.mark.parametrize(
    ("modality", "data", "message"),
    [
        (IMAGE, bytes(5), "5 bytes instead of 6"),
        (TABLE, bytes(17), "17 bytes instead of 16"),
        (TABLE, np.array([0, 1, -np.inf, 3], np.float32).tobytes(), "infinite"),
        (AUDIO, bytes(3), "odd number of bytes"),
    ],
)
def test_wrong_bytes(modality: Modality, data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        codec(modality).decode([None, data])


def test_more_frames_than_the_dataset_says():
    with pytest.raises(ValueError, match="4 frames instead of 3 at most"):
        codec(VIDEO, 8).decode([None, photos(4)])


def test_bytes_that_are_no_utf8(tokenizer: Tokenizer):
    with pytest.raises(ValueError, match="can't decode byte 0xff in position 3"):
        codec(TEXT, 8, tokenizer).decode([b"fine", None, b"red\xff"])


def test_text_without_tokenizer_or_length(tokenizer: Tokenizer):
    for given, lacking in (({}, "tokenizer"), ({"length": 5}, "tokenizer"), ({"tokenizer": tokenizer}, "length")):
        with pytest.raises(ValueError, match=f"text needs a {lacking}"):
            codec(TEXT, **given).decode([None])
    with pytest.raises(ValueError, match="a length of 2 tokens has no room for text beside 2 special tokens"):
        codec(TEXT, 2, tokenizer)


@pytest.mark.parametrize("modality", [IMAGE, AUDIO, TABLE, JPEG, VIDEO])
def test_tokenizer_is_for_text(modality: Modality, tokenizer: Tokenizer):
    with pytest.raises(ValueError, match="takes no tokenizer"):
        codec(modality, tokenizer=tokenizer)


def test_which_kinds_take_a_tokenizer():
    assert [takes_tokenizer(modality) for modality in (IMAGE, AUDIO, TABLE, JPEG, TEXT)] == [False] * 4 + [True]
    with pytest.raises(ValueError, match="is not known"):
        takes_tokenizer(Modality("smell", "raw"))


def test_which_kinds_are_stored_as_lists():
    assert [stores_list(modality) for modality in (IMAGE, AUDIO, TABLE, JPEG, TEXT, VIDEO)] == [False] * 5 + [True]


def test_jpeg_images_need_a_length_to_decode():
    with pytest.raises(ValueError, match="needs a length: the side of the square images of a batch, in pixels"):
        codec(JPEG).decode([None])
    with pytest.raises(ValueError, match="video/jpeg needs a length: the side"):
        codec(VIDEO).decode([None])


def test_video_needs_its_largest_number_of_frames_to_decode():
    with pytest.raises(ValueError, match="video without max_frames"):
        codec(Modality("video", "jpeg", frame_rate=1.0), 8).decode([None])


@pytest.mark.parametrize(
    ("modality", "length", "message"),
    [
        (Modality("smell", "raw"), None, "kind 'smell' with encoding 'raw' is not known .*image/raw"),
        (Modality("image", "raw"), None, "needs a shape of 3 sizes, not None"),
        (Modality("image", "raw", shape=(2, 0, 1)), None, "needs a shape of 3 sizes"),
        (Modality("tabular", "float32", shape=(2, 3)), None, "needs a shape of 1 sizes"),
        (Modality("tabular", "float32", shape=(2,), columns=("a",)), None, "columns name not each of the 2 numbers"),
        (
            Modality("tabular", "float32", shape=(2,), columns=("a", "a")),
            None,
            "columns name not each of the 2 numbers",
        ),
        (dataclasses.replace(CATEGORIES, columns=None), None, "levels are of columns that are not named"),
        (dataclasses.replace(CATEGORIES, levels={"e": {}}), None, "levels are of columns that are not named"),
        (Modality("audio", "pcm_s16le"), None, "needs a sample_rate"),
        (IMAGE, 5, "takes no length"),
        (AUDIO, -1, "length must be positive"),
        (JPEG, 0, "length must be positive"),
        (Modality("image", "jpeg", shape=(4, 4, 3)), None, "takes no shape"),
        (Modality("video", "jpeg"), None, "video needs a frame_rate"),
        (Modality("video", "jpeg", frame_rate=-1.0), None, "video needs a frame_rate"),
        (Modality("video", "jpeg", frame_rate=1.0, shape=(4, 4, 3)), None, "video/jpeg takes no shape"),
        (Modality("video", "jpeg", frame_rate=1.0, framing="half"), None, "framing 'half' is neither"),
        (VIDEO, 0, "length must be positive"),
    ],
)
def test_wrong_descriptions(modality: Modality, length: int | None, message: str):
    with pytest.raises(ValueError, match=message):
        codec(modality, length)
