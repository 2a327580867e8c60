"""Values to bytes to batches, kind by kind."""

import numpy as np
import pytest

from umemma_jax.data.kinds import Modality, codec

IMAGE = Modality("image", "raw", shape=(2, 3, 1))
AUDIO = Modality("audio", "pcm_s16le", sample_rate=8000, max_samples=6)
TABLE = Modality("tabular", "float32", shape=(4,))


def test_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 1), np.uint8)
    batch = codec(IMAGE).decode([codec(IMAGE).encode(image) for image in images])
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, images)


def test_tabular():
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    batch = codec(TABLE).decode([codec(TABLE).encode(row) for row in rows])
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, rows)


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


def test_absent_is_zero():
    image = np.full((2, 3, 1), 7, np.uint8)
    batch = codec(IMAGE).decode([None, image.tobytes(), None])
    np.testing.assert_array_equal(batch[1], image)
    assert not batch[[0, 2]].any()
    batch = codec(AUDIO).decode([None, b"\1\2"])
    np.testing.assert_array_equal(batch["samples"], [[0] * 6, [0x0201, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["length"], [0, 1])
    assert codec(TABLE).decode([None, None]).shape == (2, 4)


def test_batches_can_be_written_to():
    codec(IMAGE).decode([None])[:] = 1
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
        (TABLE, np.array([0, 1, np.nan, 3], np.float32), "not finite"),
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
        (AUDIO, bytes(3), "odd number of bytes"),
    ],
)
def test_wrong_bytes(modality: Modality, data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        codec(modality).decode([None, data])


@pytest.mark.parametrize(
    ("modality", "length", "message"),
    [
        (Modality("smell", "raw"), None, "kind 'smell' with encoding 'raw' is not known .*image/raw"),
        (Modality("image", "raw"), None, "needs a shape of 3 sizes, not None"),
        (Modality("image", "raw", shape=(2, 0, 1)), None, "needs a shape of 3 sizes"),
        (Modality("tabular", "float32", shape=(2, 3)), None, "needs a shape of 1 sizes"),
        (Modality("audio", "pcm_s16le"), None, "needs a sample_rate"),
        (IMAGE, 5, "takes no length"),
        (AUDIO, -1, "length must be positive"),
    ],
)
def test_wrong_descriptions(modality: Modality, length: int | None, message: str):
    with pytest.raises(ValueError, match=message):
        codec(modality, length)
