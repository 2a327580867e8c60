import gzip
import hashlib
import shutil
import tarfile
from collections import Counter

import numpy as np
import pytest
import scipy.io.wavfile

from tests.data_prep.prepared import contents, read_split
from tests.data_prep.raw_files import TEST_PER_DIGIT, TRAIN_PER_DIGIT, write_fsdd, write_mnist
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import av_mnist
from umemma_jax.data_prep.raw.download import RemoteFile
from umemma_jax.data_prep.raw.fsdd import find_recordings, split_recordings
from umemma_jax.data_prep.raw.mnist import read_mnist
from umemma_jax.errors import UserError


def prepare(out, digits, **options):
    av_mnist.prepare(str(out), mnist=str(digits / "mnist"), fsdd=str(digits / "fsdd"), **options)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory, digits):
    """`small` from the hand-made files, seed 0."""
    return prepare(tmp_path_factory.mktemp("prepared") / "small", digits)


# --- the protocols on the real files ----------------------------------------------------------------------------------


def test_small_is_smils_protocol(tmp_path, shared_data):
    out = prepare(tmp_path / "small", shared_data)
    info = open_dataset(out).info
    assert info.splits["train"].classes == (105,) * 10
    assert info.splits["test"].classes == (45,) * 10
    assert info.modalities["audio"].sample_rate == 8000

    mnist = read_mnist(shared_data / "mnist")
    used = {}
    for split, takes in (("train", range(15, 50)), ("test", range(15))):
        images, labels = mnist[split]
        examples = read_split(out, split)
        expected = {f"{d}_{s}_{i}" for d in range(10) for s in ("jackson", "nicolas", "theo") for i in takes}
        used[split] = {example.recording for example in examples}
        assert used[split] == expected
        assert len(examples) == len(expected)  # each once
        assert len({example.image_number for example in examples}) == len(examples)
        for example in examples:
            assert example.label == int(example.recording[0]) == labels[example.image_number]
            np.testing.assert_array_equal(example.image[..., 0], images[example.image_number])
        for example in examples[::50]:
            wav = shared_data / "fsdd" / "recordings" / f"{example.recording}.wav"
            np.testing.assert_array_equal(example.audio, scipy.io.wavfile.read(wav)[1])
    assert not used["train"] & used["test"]


def test_large_pairs_every_image_with_the_official_split(shared_data):
    recordings = find_recordings(shared_data / "fsdd", av_mnist.VARIANTS["large"].speakers)
    by_split = split_recordings(recordings, av_mnist.VARIANTS["large"].test)
    for split, (_, labels) in read_mnist(shared_data / "mnist").items():
        pairs = av_mnist.draw_pairs(labels, by_split[split], every_image=True, rng=np.random.default_rng(0))
        assert sorted(pair.image for pair in pairs) == list(range(len(labels)))
        assert all(pair.recording.digit == labels[pair.image] for pair in pairs)
        assert all((pair.recording.index < 5) == (split == "test") for pair in pairs)
        times = Counter(pair.recording for pair in pairs)
        assert len(times) == {"train": 2700, "test": 300}[split]
        for digit in range(10):
            of_digit = [count for recording, count in times.items() if recording.digit == digit]
            assert max(of_digit) - min(of_digit) <= 1


def test_degraded_sound_has_the_stated_ratio(tmp_path, shared_data):
    clean = read_split(prepare(tmp_path / "clean", shared_data), "test")
    noisy = read_split(prepare(tmp_path / "noisy", shared_data, degrade=True, snr_db=-3.0), "test")
    assert [example.id for example in noisy] == [example.id for example in clean]
    measured = []
    for before, after in zip(clean, noisy, strict=True):
        if np.abs(after.audio.astype(int)).max() < 32767:  # not scaled down
            signal = before.audio.astype(float)
            measured.append(10 * np.log10(np.mean(signal**2) / np.mean((after.audio - signal) ** 2)))
    assert len(measured) > 400
    np.testing.assert_allclose(measured, -3.0, atol=0.05)


# --- what needs no real files -----------------------------------------------------------------------------------------


def test_large_and_degraded(tmp_path, digits):
    out = prepare(tmp_path / "large", digits, variant="large", degrade=True, image_energy_removed=0.5)
    info = open_dataset(out).info
    assert info.name == "av_mnist_large_degraded"
    assert info.splits["train"].classes == (TRAIN_PER_DIGIT,) * 10
    assert info.splits["test"].classes == (TEST_PER_DIGIT,) * 10
    assert info.source["image_energy_removed"] == 0.5
    assert info.source["snr_db"] == -10.0
    assert "with 0.5 of the variance" in info.description
    assert "at -10 dB SNR" in info.description
    clean, _ = read_mnist(digits / "mnist")["train"]
    degraded = {example.image_number: example.image for example in read_split(out, "train")}
    left = 2 * (np.stack([degraded[i] for i in range(len(clean))]).reshape(len(clean), -1) - 128.0)
    assert left.var(axis=0).sum() / clean.reshape(len(clean), -1).var(axis=0).sum() == pytest.approx(0.5, abs=0.01)


def test_noise_differs_between_uses_of_a_recording(tmp_path, digits):
    examples = read_split(prepare(tmp_path / "large", digits, variant="large", degrade=True), "test")
    sounds = {(example.recording, example.audio.tobytes()) for example in examples}
    assert len({recording for recording, _ in sounds}) == 150
    assert len(sounds) == len(examples) == 460


def test_same_seed_same_bytes(tmp_path, digits, small):
    assert contents(prepare(tmp_path / "again", digits, seed=0)) == contents(small)


def test_other_seed_other_pairs(tmp_path, digits, small):
    other = prepare(tmp_path / "other", digits, seed=1)
    for split in ("train", "test"):
        mine, theirs = ({e.id for e in read_split(folder, split)} for folder in (small, other))
        assert {i.split("+")[0] for i in mine} == {i.split("+")[0] for i in theirs}
        assert mine != theirs


def test_order_is_shuffled(small):
    labels = [example.label for example in read_split(small, "train")]
    assert labels != sorted(labels)
    assert len(set(labels[:30])) > 5


def test_overwrites_only_when_told(tmp_path, digits):
    out = prepare(tmp_path / "out", digits)
    with pytest.raises(UserError, match="--overwrite"):
        prepare(out, digits, seed=1)
    assert open_dataset(out).info.source["seed"] == 0
    prepare(out, digits, seed=1, overwrite=True)
    assert open_dataset(out).info.source["seed"] == 1


def test_prints_counts(tmp_path, digits, capsys):
    prepare(tmp_path / "out", digits)
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split() for line in table] == [
        ["class", *"0123456789", "all"],
        ["train", *["105"] * 10, "1050"],
        ["test", *["45"] * 10, "450"],
    ]


# --- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, digits, monkeypatch):
    """Makes the registry point at local files; returns their folder."""
    server = tmp_path / "server"
    server.mkdir()
    for path in (digits / "mnist").iterdir():
        content = path.read_bytes()
        name = path.name.removesuffix(".gz") + ".gz"
        (server / name).write_bytes(content if path.suffix == ".gz" else gzip.compress(content))
    with tarfile.open(server / "spoken-1.0.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(digits / "fsdd", "spoken-1.0")

    def registered_files(dataset):
        paths = sorted(server.glob({"mnist": "*ubyte.gz", "spoken_digit": "*.tar.gz"}[dataset]))
        sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        return [RemoteFile(p.as_uri(), p.stat().st_size, s, p.name) for p, s in zip(paths, sums, strict=True)]

    monkeypatch.setattr(av_mnist, "registered_files", registered_files)
    return server


def test_downloaded_files_give_the_same_dataset(tmp_path, server, small):
    av_mnist.prepare(str(tmp_path / "out"), cache=str(tmp_path / "cache"))
    assert contents(tmp_path / "out") == contents(small)


def test_one_source_given_the_other_downloaded(tmp_path, server, digits, small):
    shutil.rmtree(server / "spoken-1.0", ignore_errors=True)
    av_mnist.prepare(str(tmp_path / "out"), fsdd=str(digits / "fsdd"), cache=str(tmp_path / "cache"))
    assert contents(tmp_path / "out") == contents(small)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["mnist"]


def test_five_speakers_are_enough_for_large(tmp_path):
    """tensorflow-datasets' copy has no more."""
    speakers = ("george", "jackson", "nicolas", "theo", "yweweler")
    write_mnist(tmp_path / "mnist")
    write_fsdd(tmp_path / "fsdd", speakers)
    out = prepare(tmp_path / "out", tmp_path, variant="large")
    assert {example.recording.split("_")[1] for example in read_split(out, "test")} == set(speakers)
