import csv
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_prep.raw_clips import read_clips
from tests.data_prep.raw_files import wav_bytes
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import ave, kinetics_sound, rendered_clips
from umemma_jax.data_prep.build import clip_dataset
from umemma_jax.data_prep.build.prep_report import DAMAGED, FILE_NAME, UNREADABLE
from umemma_jax.data_prep.raw import encoding
from umemma_jax.data_prep.raw.clips import ToClip
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 40
HERTZ = 200, 350  # of the digit 0 as it is "spoken" here, and from one digit to the next


@pytest.fixture(scope="module")
def sources(tmp_path_factory, digits):
    """Folder with `mnist`, and recordings of half a second that tell digit and index: in pitch, and in loudness."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "mnist").symlink_to(digits / "mnist")
    (folder / "recordings").mkdir()
    for digit in range(10):
        for index in range(50):
            wave = 10000 * np.sin(2 * np.pi * (HERTZ[0] + HERTZ[1] * digit) * np.arange(4000) / 8000)
            path = folder / "recordings" / f"{digit}_theo_{index}.wav"
            path.write_bytes(wav_bytes(np.rint(wave).astype("<i2").tobytes()))
    return folder


def render(out, sources, **options):
    options = {"clips": CLIPS, "picture_noise": 0.0, "snr_db": 60.0} | options
    rendered_clips.prepare(str(out), mnist=str(sources / "mnist"), fsdd=str(sources), **options)
    return out


def listed(folder, split):
    """Of the layout of AVE."""
    return list(ave.read_rows(folder / ave.LISTS[split]))


def digit_heard(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return round((np.argmax(spectrum) * 16000 / len(samples) - HERTZ[0]) / HERTZ[1])


@pytest.fixture(scope="module")
def clean(tmp_path_factory, sources):
    return render(tmp_path_factory.mktemp("rendered") / "ave", sources)


def test_splits_and_classes(clean):
    counts = {split: Counter(row.category for row in listed(clean, split)) for split in ave.LISTS}
    digits = [str(digit) for digit in range(10)]
    assert counts == {
        "train": dict.fromkeys(digits, 2),
        "val": dict.fromkeys(digits, 1),
        "test": dict.fromkeys(digits, 1),
    }
    assert len(list(ave.read_rows(clean / "Annotations.txt"))) == CLIPS
    suffixes = {path.suffix for path in (clean / "AVE").iterdir()}
    assert suffixes == {form.suffix for form in encoding.available_forms()}


def test_digit_is_heard_in_the_event_and_silence_beyond(clean):
    partial = 0
    for row in listed(clean, "train"):
        (path,) = clean.glob(f"AVE/{row.video}.*")
        samples = ToClip(0, 10).read(path).samples.astype(float)
        event = samples[round(row.start * 16000) : round(row.end * 16000)]
        assert digit_heard(event) == int(row.category)
        # What a codec adds at the borders is left out of the comparison.
        beyond = np.concatenate(
            [samples[: max(0, round((row.start - 0.1) * 16000))], samples[round((row.end + 0.1) * 16000) :]]
        )
        if len(beyond) > 8000:
            partial += 1
            assert np.sqrt(np.mean(beyond**2)) < 0.05 * np.sqrt(np.mean(event**2))
    assert partial > 2


def test_digit_is_seen_in_the_event_and_moves(clean):
    moved = []
    for row in listed(clean, "train"):
        (path,) = clean.glob(f"AVE/{row.video}.*")
        frames = [
            np.asarray(Image.open(io.BytesIO(frame)).convert("L"), float)
            for frame in ToClip(0, 10, 4).read(path).frames
        ]
        contrasts = np.array([frame.std() for frame in frames])
        seen = contrasts > 10
        times = (np.arange(len(frames)) + 0.5) / 4
        np.testing.assert_array_equal(seen, (times > row.start) & (times < row.end))
        first, last = (frames[i] for i in np.flatnonzero(seen)[[0, -1]])
        moved.append(np.abs(first - last).mean())
    assert np.mean(np.array(moved) > 5) > 0.9


def test_table_with_titles(tmp_path, sources):
    """Most titles name the digit, and it is the right one."""
    plans = rendered_clips.make_plans(sources / "mnist", sources, "ave", 300, False, np.random.default_rng(0))
    named = [plan for plan in plans if any(word in plan.title for word in rendered_clips.WORDS)]
    assert 0.6 < len(named) / len(plans) < 0.8
    assert all(rendered_clips.WORDS[plan.digit] in plan.title for plan in named)
    for layout in rendered_clips.LAYOUTS:
        out = render(tmp_path / layout, sources, layout=layout, broken=True)
        with (out / "clips.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        absent = [row["video"] for row in rows if not (out / row["video"]).is_file()]
        assert len(rows) == CLIPS and len(absent) == 1
        assert Counter(row["split"] for row in rows) == {"train": 20, "val": 10, "test": 10}
        assert Counter(row["digit"] for row in rows) == dict.fromkeys(map(str, range(10)), 4)


def test_no_source_is_in_two_splits(tmp_path, sources):
    out = render(tmp_path / "out", sources)
    spoken = json.loads((out / "rendered.json").read_text())["spoken"]
    takes = {split: set() for split in ave.LISTS}
    for split, used in takes.items():
        for row in listed(out, split):
            assert all(name.startswith(f"{row.category}_") for name in spoken[row.video])
            used |= {int(name.split("_")[-1]) for name in spoken[row.video]}
    assert takes["test"] <= set(range(10))
    assert takes["val"] <= set(range(10, 15))
    assert takes["train"] <= set(range(15, 50))
    plans = rendered_clips.make_plans(sources / "mnist", sources, "ave", 300, False, np.random.default_rng(0))
    images = {split: {plan.image.tobytes() for plan in plans if plan.split == split} for split in ave.LISTS}
    assert sum(map(len, images.values())) == 300 == len(set.union(*images.values()))  # hand-made images differ


@pytest.mark.slow
def test_same_seed_same_clips(tmp_path, sources, clean):
    again, other = (render(tmp_path / name, sources, seed=seed) for name, seed in (("again", 0), ("other", 1)))
    clips_of = {}
    for folder in (clean, again, other):
        paths = sorted((folder / "AVE").iterdir())
        clips_of[folder] = {path.name: ToClip(0, 10).read(path) for path in paths}
    assert clips_of[clean].keys() == clips_of[again].keys()
    for name, clip in clips_of[clean].items():
        assert clip.frames == clips_of[again][name].frames
        np.testing.assert_array_equal(clip.samples, clips_of[again][name].samples)
        assert name not in clips_of[other] or clips_of[other][name].frames != clip.frames


def test_noise_hides(tmp_path, sources):
    """Noise of each clip's own strength, up to what is asked for."""
    out = render(tmp_path / "out", sources, picture_noise=80.0, snr_db=-20.0)
    deviations, ratios = [], []
    for row in listed(out, "train"):
        (path,) = out.glob(f"AVE/{row.video}.*")
        clip = ToClip(row.start, row.end).read(path)
        pixels = np.asarray(Image.open(io.BytesIO(clip.frames[0])).convert("L"), float)
        deviations.append(np.diff(pixels, axis=1).std() / 2**0.5)
        spectrum = np.abs(np.fft.rfft(clip.samples)) ** 2
        hertz = np.fft.rfftfreq(len(clip.samples), 1 / 16000)
        tone = np.abs(hertz - HERTZ[0] - HERTZ[1] * int(row.category)) < 20
        ratios.append(10 * np.log10(spectrum[tone].sum() / spectrum[~tone].sum()))
    assert np.ptp(deviations) > 30
    assert -25 < min(ratios) < -12 and -8 < max(ratios) < 3
    assert abs(np.corrcoef(deviations, ratios)[0, 1]) < 0.5  # what is hard to see is not hard to hear


@pytest.mark.parametrize("layout", rendered_clips.LAYOUTS)
def test_broken_clips_go_through_the_preparation(tmp_path, sources, layout):
    raw = render(tmp_path / "raw", sources, layout=layout, broken=True, seed=3)
    out = tmp_path / "out"
    options = {"raw": str(raw), "max_unreadable": 0.5, "processes": 2}
    if layout == "ave":
        ave.prepare(str(out), **options)
    else:
        lists = {f"{split}_list": str(raw / f"{split}.txt") for split in ("train", "val", "test")}
        kinetics_sound.prepare(str(out), classes=str(raw / "classes.txt"), **lists, **options)
    broken = json.loads((raw / "rendered.json").read_text())["broken"]
    assert {fault: len(ids) for fault, ids in broken.items()} == dict.fromkeys(rendered_clips.FAULTS, 1)
    report = json.loads((out / FILE_NAME).read_text())
    kinds = {
        clip_dataset.ABSENT: broken["absent"],
        UNREADABLE: [*broken["empty"], *broken["not a video"]],
        DAMAGED: broken["truncated"],
        clip_dataset.NO_SOUND: broken["silent"],
        clip_dataset.NO_PICTURE: broken["without picture"],
    }
    for kind, ids in kinds.items():
        found = report[kind]["entries"]
        assert len(found) == len(ids) and all(any(id in entry for entry in found) for id in ids), kind
    info = open_dataset(out).info
    assert info.classes == tuple(map(str, range(10)))
    assert sum(split.examples for split in info.splits.values()) == CLIPS - 3
    for example in read_clips(out, "train"):
        id = example["id"][:11]
        assert info.classes[example["label"]] == str(int(id[4:]) % 10)
        if "audio" in example and id not in broken["truncated"] and layout == "kinetics_sound":
            assert digit_heard(example["audio"]) == example["label"]


def test_class_folders(tmp_path, sources):
    raw = render(tmp_path / "raw", sources, layout="kinetics_sound")
    assert sorted(path.name for path in (raw / "train").iterdir()) == [str(digit) for digit in range(10)]
    kinetics_sound.prepare(str(tmp_path / "out"), raw=str(raw), classes=str(raw / "classes.txt"))
    splits = open_dataset(tmp_path / "out").info.splits
    assert {name: split.examples for name, split in splits.items()} == {"train": 20, "val": 10, "test": 10}


def test_overwrites_only_what_was_rendered(tmp_path, sources):
    out = render(tmp_path / "out", sources, clips=30)
    with pytest.raises(UserError, match="--overwrite"):
        render(out, sources, clips=30)
    render(out, sources, clips=40, overwrite=True)
    assert len(list((out / "AVE").iterdir())) == 40
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    with pytest.raises(UserError, match="was not rendered"):
        render(tmp_path / "mine", sources, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize(
    ("count", "complaint"), [(29, "30 are the fewest"), (600, "at most 530 with the images of 0"), (500, "at most 460")]
)
def test_too_few_and_too_many(tmp_path, sources, count, complaint):
    with pytest.raises(UserError, match=complaint):
        render(tmp_path / "out", sources, clips=count)
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path, sources):
    command = [sys.executable, "-m", "data_prep.rendered_clips", f"--mnist={sources}/mnist", f"--fsdd={sources}"]
    command += [f"--out={tmp_path}/out", "--clips=30", "--layout=kinetics_sound"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"{tmp_path}/out: 10 train, 10 val, 10 test"
    result = subprocess.run([*command, "--layout=youtube"], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
