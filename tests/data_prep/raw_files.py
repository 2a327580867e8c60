"""Hand-made raw files: IDX and WAV packed byte by byte, and small sources in the layouts of MNIST and FSDD."""

import gzip
import struct

import numpy as np

TRAIN_PER_DIGIT = 106  # one more than `small` needs
TEST_PER_DIGIT = 46


def idx_bytes(array, element_type=0x08):
    """The file of an array of uint8."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, element_type, array.ndim, *array.shape) + array.tobytes()


def wav_bytes(pcm, sample_rate=8000, channels=1, bits=16):
    """The file of PCM bytes."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, sample_rate, sample_rate * frame, frame, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def write_mnist(folder):
    """Random images with the labels 0, 1, ..., 9, 0, 1, ..."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 10 * TRAIN_PER_DIGIT), ("t10k", 10 * TEST_PER_DIGIT)):
        images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def write_fsdd(folder, speakers=("jackson", "nicolas", "theo")):
    """Recordings 0 to 49 of each digit by each speaker: 40 samples of noise."""
    (folder / "recordings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for speaker in speakers:
        for digit in range(10):
            for index in range(50):
                pcm = rng.integers(-3000, 3000, size=40).astype("<i2").tobytes()
                (folder / "recordings" / f"{digit}_{speaker}_{index}.wav").write_bytes(wav_bytes(pcm))
