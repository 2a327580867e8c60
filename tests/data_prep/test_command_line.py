"""Every mistake that a user can make with files and flags, through the real command line."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data_prep.raw_files import TRAIN_PER_DIGIT, idx_bytes, wav_bytes

ROOT = Path(__file__).resolve().parents[2]
IMAGES = "mnist/train-images-idx3-ubyte.gz"
LABELS = "mnist/train-labels-idx1-ubyte"
WAV = "fsdd/recordings/3_theo_7.wav"


def run(module, *arguments, **environment):
    command = [sys.executable, "-m", f"data_prep.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


def assert_one_line(result, *words):
    """Exit status 1 and one line on stderr that has the words."""
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in ("error: ", *words):
        assert word in result.stderr


@pytest.fixture
def damaged(tmp_path, digits):
    """A copy of the hand-made sources, in which files may be replaced (not changed in place: they are hard links)."""
    shutil.copytree(digits, tmp_path / "raw", copy_function=os.link)
    return tmp_path / "raw"


def replace(path, content):
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def change(path, edit):
    replace(path, edit(path.read_bytes()))


def labels(*counts):
    """A label file with so many of each digit."""
    return idx_bytes(np.repeat(np.arange(10, dtype=np.uint8), counts))


EVEN = [TRAIN_PER_DIGIT] * 10

FAULTS = {
    "idx truncated": (lambda raw: change(raw / LABELS, lambda b: b[:-1]), "train-labels-idx1-ubyte: truncated"),
    "gzip truncated": (lambda raw: change(raw / IMAGES, lambda b: b[:-100]), "train-images-idx3-ubyte.gz: truncated"),
    "magic": (lambda raw: change(raw / LABELS, lambda b: b"\0\0\x0d" + b[3:]), "ubyte: not the expected idx file"),
    "counts": (lambda raw: replace(raw / LABELS, labels(*EVEN[1:], 0)), "1060 images, but 954 labels"),
    "image size": (
        lambda raw: replace(raw / IMAGES, gzip.compress(idx_bytes(np.zeros((1060, 8, 8), np.uint8)))),
        "images of 8x8 instead of 28x28",
    ),
    "label": (lambda raw: replace(raw / LABELS, idx_bytes(np.full(1060, 10, np.uint8))), "label 10 is no digit"),
    "few images": (lambda raw: replace(raw / LABELS, labels(*EVEN[2:], 2, 210)), "2 images of digit 8"),
    "no mnist": (
        lambda raw: shutil.rmtree(raw / "mnist"),
        "no train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (.gz",
    ),
    "idx missing": (lambda raw: (raw / LABELS).unlink(), "mnist: no train-labels-idx1-ubyte (.gz or unpacked)"),
    "no recordings": (lambda raw: shutil.rmtree(raw / "fsdd"), "fsdd: no recordings"),
    "wav truncated": (lambda raw: change(raw / WAV, lambda b: b[:-1]), "3_theo_7.wav: truncated"),
    "not riff": (lambda raw: replace(raw / WAV, b"ID3 an mp3 renamed"), "3_theo_7.wav: not a WAV file"),
    "sample rate": (
        lambda raw: replace(raw / WAV, wav_bytes(b"1234", sample_rate=16000)),
        "16000 Hz, 16 bits: bring another",
    ),
    "stereo": (lambda raw: replace(raw / WAV, wav_bytes(b"1234", channels=2)), "3_theo_7.wav: format 1, channels: 2"),
    "8 bit": (
        lambda raw: replace(raw / WAV, wav_bytes(b"1234", bits=8)),
        "channels: 1, 8000 Hz, 8 bits",
    ),
    "name": (
        lambda raw: (raw / WAV).rename(raw / "fsdd/recordings/three.wav"),
        "three.wav: the name is not of the form",
    ),
    "few recordings": (
        lambda raw: (raw / WAV).unlink(),
        "49 recordings of digit 3 by theo instead of 50: bring 3_theo_7",
    ),
    "speaker absent": (
        lambda raw: [path.unlink() for path in (raw / "fsdd/recordings").glob("*_nicolas_*")],
        "0 recordings of digit 0 by nicolas instead of 50: bring 0_nicolas_0.wav and others",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_file(tmp_path, damaged, fault):
    damage, complaint = FAULTS[fault]
    damage(damaged)
    result = run("av_mnist", f"--mnist={damaged}/mnist", f"--fsdd={damaged}/fsdd", f"--out={tmp_path}/new/out")
    assert_one_line(result, complaint)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--variant=medium"], "invalid choice: 'medium'"),
        (["--snr_db=3"], "--snr_db means nothing without --degrade"),
        (["--degrade", "--image_energy_removed=75"], "--image_energy_removed=75.0: give a share between 0 and 1"),
        (["--degrade", "--snr_db=loud"], "--snr_db: invalid float value: 'loud'"),
        (["--mnsit=x"], "unrecognized arguments: --mnsit=x"),
    ],
)
def test_bad_flag(tmp_path, digits, arguments, complaint):
    result = run("av_mnist", f"--mnist={digits}/mnist", f"--fsdd={digits}/fsdd", f"--out={tmp_path}/out", *arguments)
    assert_one_line(result, complaint)
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path):
    nowhere = "http://127.0.0.1:9"  # a proxy that is not there
    result = run(
        "av_mnist", f"--out={tmp_path}/out", f"--cache={tmp_path}/cache", http_proxy=nowhere, https_proxy=nowhere
    )
    assert_one_line(
        result, "cannot be downloaded", "train-images-idx3-ubyte.gz", "--mnist=DIR", "recordings/*.wav", "--fsdd=DIR"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_av_mnist(tmp_path, digits):
    arguments = [f"--mnist={digits}/mnist", f"--fsdd={digits}/fsdd/recordings", f"--out={tmp_path}/out", "--seed=3"]
    result = run("av_mnist", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"av_mnist_small: {tmp_path}/out" in result.stdout
    assert_one_line(run("av_mnist", *arguments), f"{tmp_path}/out", "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_quickstart(tmp_path):
    result = run("quickstart", f"--out={tmp_path}/out")
    assert (result.returncode, result.stderr) == (0, "")
    assert "quickstart: " in result.stdout
    assert_one_line(run("quickstart", f"--out={tmp_path}/out"), f"{tmp_path}/out", "--overwrite")
