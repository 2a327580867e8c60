"""Labelled clips in the raw layouts of AVE and Kinetics-Sound: a handwritten digit moves while spoken ones are heard.

python -m data_prep.rendered_clips --mnist=DIR --fsdd=DIR --out=DIR [--layout=kinetics_sound] [--clips=600] [--broken]

The digit is the class. Pictures are MNIST's, recordings the Free Spoken Digit Dataset's; train, val and test have other
ones each. A clip lasts 2 to 4 s, in one of several containers and codecs (those of `encoding.FORMS` that FFmpeg was
built with), sizes and frame rates. Each clip draws how strong the noise is, for each modality by itself. It hides some
digits from the eye and others from the ear, so that either modality alone is not enough. With --broken some files are
absent, empty, no video at all, truncated, silent or without picture.

Layout `ave`: the event lasts for the whole clip or for all but its first or its last second. Beyond it nothing is seen
or heard but noise. Layout `kinetics_sound`: folders `<split>/<class>`, beside them the lists `<split>.txt` and the list
of the classes, `classes.txt`. In both, `clips.csv` is a table for data_prep.table, in which every clip has a title:
most of these name the digit, the others do not. `rendered.json` says what was made of what.

python -m data_prep.table --table=DIR/clips.csv --video=video --audio=video --text=title --label=digit --split=split \\
    --out=DATA
"""

import csv
import itertools
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from umemma_jax import command
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.splits import SPLITS
from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw.clips import ToSound
from umemma_jax.data_prep.raw.degrade import add_white_noise
from umemma_jax.data_prep.raw.encoding import Form, available_forms, write_video
from umemma_jax.data_prep.raw.fsdd import find_recordings, split_recordings
from umemma_jax.data_prep.raw.mnist import CLASSES, read_mnist
from umemma_jax.errors import UserError

LAYOUTS = ("ave", "kinetics_sound")
SHARES = {"val": 0.1, "test": 0.2}  # of the clips; train has the rest
TAKES = {"test": range(10), "val": range(10, 15)}  # of each speaker and digit; train has the rest
SAMPLE_RATE = 16000
FRAME_RATES = (25, 30)
SECONDS = (2, 3, 4)
EVENT_IS_ALL = 0.7  # share of the clips in which it is, as in AVE
DIGIT = 42  # pixels of its side
PAUSE = 0.1, 0.4  # s between recordings
TITLES = ("{} in motion", "my {} clip", "how to say {}", "{}, seen and heard", "look at this {}")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAMED = 0.7  # share of the titles that name the digit
SNR_RANGE = 20.0  # dB between the noisiest sound and the clearest
FAULTS = ("absent", "empty", "not a video", "truncated", "silent", "without picture")
BROKEN_SHARE = 0.01  # of the clips for each fault
INFO = "rendered.json"


@dataclass(frozen=True)
class Plan:
    """What a clip will be.

    Attributes:
      id: of 11 characters, as YouTube's.
      split: its split.
      digit: its class.
      image: uint8 [28, 28].
      spoken: recordings, in order, more than can be heard.
      seconds: how long it lasts.
      event: from when to when, s, the digit is there.
      fault: one of FAULTS, or None.
      title: names the digit, or only says that it is one.
      form: how its file is made.
    """

    id: str
    split: str
    digit: int
    image: np.ndarray
    spoken: Sequence[Path]
    seconds: int
    event: tuple[int, int]
    fault: str | None
    title: str
    form: Form


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    mnist: str,
    fsdd: str,
    layout: str = "ave",
    clips: int = 600,
    picture_noise: float = 60.0,
    snr_db: float = -18.0,
    broken: bool = False,
) -> None:
    """Renders clips.

    Args:
      out: folder to make.
      seed: of every draw.
      overwrite: whether `out`, if it was rendered, may be replaced.
      mnist: folder with the four files of MNIST.
      fsdd: folder of FSDD, or of its recordings.
      layout: "ave" or "kinetics_sound".
      clips: how many.
      picture_noise: greatest deviation of the noise in a picture; each clip draws its own from 0 to this, of 255.
      snr_db: least ratio of the digits to the noise in sound; each clip draws its own up to 20 dB above.
      broken: whether some are.

    Raises:
      UserError: a source is missing or damaged, FFmpeg lacks all encoders, or `out` is in use.
    """
    folder = Path(out).resolve()
    _check_target(folder, overwrite)
    draw, render = np.random.default_rng(seed).spawn(2)
    plans = make_plans(Path(mnist), Path(fsdd), layout, clips, broken, draw)
    settings = {"layout": layout, "seed": seed, "clips": clips, "picture_noise": picture_noise, "snr_db": snr_db}
    partial = folder.with_name(f"{folder.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        for plan, rng in zip(console.progress(plans, "rendering", len(plans)), render.spawn(len(plans)), strict=True):
            _render(partial, layout, plan, picture_noise, snr_db, rng)
        _write_lists(partial, layout, plans)
        _write_table(partial, layout, plans)
        _write_info(partial, settings, plans)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}): choose another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = Counter(plan.split for plan in plans)
    print(f"{folder}: {', '.join(f'{counts[split]} {split}' for split in SPLITS)}")


# --- what to render ---------------------------------------------------------------------------------------------------


def make_plans(mnist: Path, fsdd: Path, layout: str, clips: int, broken: bool, rng: np.random.Generator) -> list[Plan]:
    """Draws what the clips are. No image is used twice; recordings are, once all of a split have been used.

    Raises:
      UserError: a source is missing or damaged, or has too few images.
    """
    images = _images_by_digit(mnist, clips, rng)
    recordings = _recordings_by_digit(fsdd, rng)
    splits = _splits(clips)
    faults = _draw_faults(clips, rng) if broken else {}
    forms, plans = available_forms(), []
    for number, split in enumerate(splits):
        digit = number % CLASSES
        seconds = int(rng.choice(SECONDS))
        event = _draw_event(seconds, rng)
        plans.append(
            Plan(
                id=f"clip{number:07d}",
                split=split,
                digit=digit,
                image=next(images[split, digit]),
                spoken=list(itertools.islice(recordings[split, digit], 2 * seconds)),
                seconds=seconds,
                event=event if layout == "ave" else (0, seconds),
                fault=faults.get(number),
                title=_draw_title(digit, rng),
                form=forms[rng.integers(len(forms))],  # not in turn: nothing but the digit may tell the class
            )
        )
    return plans


def _splits(clips: int) -> list[str]:
    """The split of each clip; all digits are alike in each as far as the numbers allow."""
    ends = {split: round(share * clips / CLASSES) * CLASSES for split, share in SHARES.items()}
    held_out = [split for split, count in ends.items() for _ in range(max(count, CLASSES))]
    if clips < len(held_out) + CLASSES:
        raise UserError(f"--clips={clips}: {len(held_out) + CLASSES} are the fewest, one of each digit in each split")
    return ["train"] * (clips - len(held_out)) + held_out


def _images_by_digit(mnist: Path, clips: int, rng: np.random.Generator) -> dict[tuple[str, int], Iterator[np.ndarray]]:
    """(split, digit) -> its images in random order; val has other images of MNIST's training set than train."""
    found = {}
    for source, (images, labels) in read_mnist(mnist).items():
        for digit in range(CLASSES):
            members = rng.permutation(np.flatnonzero(labels == digit))
            available = len(members) // (1 if source == "test" else 2)
            if available * CLASSES < clips:
                raise UserError(f"--clips={clips}: at most {available * CLASSES} with the images of {digit} in {mnist}")
            if source == "test":
                found["test", digit] = iter(images[members])
            else:
                half = len(members) // 2
                found["val", digit] = iter(images[members[:half]])
                found["train", digit] = iter(images[members[half:]])
    return found


def _recordings_by_digit(fsdd: Path, rng: np.random.Generator) -> dict[tuple[str, int], Iterator[Path]]:
    """(split, digit) -> its recordings in random order, over and over."""
    remaining, found = find_recordings(fsdd), {}
    for split, takes in TAKES.items():
        parts = split_recordings(remaining, takes)
        found[split], remaining = parts["test"], parts["train"]
    found["train"] = remaining
    return {
        (split, digit): itertools.cycle(
            [recordings[i].path for i in rng.permutation(len(recordings)) if recordings[i].digit == digit]
        )
        for split, recordings in found.items()
        for digit in range(CLASSES)
    }


def _draw_event(seconds: int, rng: np.random.Generator) -> tuple[int, int]:
    if rng.random() < EVENT_IS_ALL:
        return 0, seconds
    return (1, seconds) if rng.random() < 0.5 else (0, seconds - 1)


def _draw_title(digit: int, rng: np.random.Generator) -> str:
    return str(rng.choice(TITLES)).format(WORDS[digit] if rng.random() < NAMED else "digit")


def _draw_faults(clips: int, rng: np.random.Generator) -> dict[int, str]:
    """Clip number -> fault."""
    times = max(1, round(BROKEN_SHARE * clips))
    numbers = rng.choice(clips, times * len(FAULTS), replace=False)
    return dict(zip(numbers.tolist(), FAULTS * times, strict=True))


# --- rendering --------------------------------------------------------------------------------------------------------


def _render(
    folder: Path, layout: str, plan: Plan, picture_noise: float, snr_db: float, rng: np.random.Generator
) -> None:
    """Makes the file of a clip."""
    frame_rate = int(rng.choice(FRAME_RATES))
    deviation, snr_db = picture_noise * rng.random(), snr_db + SNR_RANGE * rng.random()
    path = folder / _place(layout, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = None if plan.fault == "without picture" else draw_pictures(plan, frame_rate, deviation, rng)
    sound = None if plan.fault == "silent" else play_recordings(plan, snr_db, rng)
    write_video(path, plan.form, pictures, frame_rate, sound, SAMPLE_RATE)
    _break(path, plan.fault)


def draw_pictures(plan: Plan, frame_rate: int, deviation: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The digit on its way, bouncing at the edges, with noise: uint8 [H, W] for each frame."""
    width, height = plan.form.size
    digit = np.asarray(Image.fromarray(plan.image).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR), float)
    background, contrast = rng.uniform(0, 60), rng.uniform(0.5, 0.75)
    room = np.array([height - DIGIT, width - DIGIT])
    position, velocity = rng.uniform(0, room), rng.uniform(-40, 40, 2)  # pixels, pixels in a second
    for number in range(plan.seconds * frame_rate):
        time = number / frame_rate
        picture = np.full((height, width), background)
        if plan.event[0] <= time < plan.event[1]:
            row, column = np.rint(_bounce(position + velocity * time, room)).astype(int)
            picture[row : row + DIGIT, column : column + DIGIT] += contrast * digit
        picture += deviation * rng.standard_normal((height, width), np.float32)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _bounce(position: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Positions folded into 0 to `room`."""
    return room - np.abs(position % (2 * room) - room)


def play_recordings(plan: Plan, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """The recordings one after another while the event lasts, with noise: int16 [S]."""
    to_sound = ToSound(0, plan.seconds, sample_rate=SAMPLE_RATE)
    sound = np.zeros(plan.seconds * SAMPLE_RATE, np.int16)
    at, end = (second * SAMPLE_RATE for second in plan.event)
    for path in plan.spoken:
        try:
            recording = to_sound.read(path).samples[: max(0, end - at)]
        except Unreadable as error:
            raise UserError(f"{path}: {error}: bring another copy of FSDD") from error
        sound[at : at + len(recording)] = recording
        at += len(recording) + round(rng.uniform(*PAUSE) * SAMPLE_RATE)
    return add_white_noise(sound, snr_db, rng)


def _break(path: Path, fault: str | None) -> None:
    """Does to a whole file what is to be wrong with it."""
    match fault:
        case "absent":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "not a video":
            path.write_text("<html><body>Video unavailable</body></html>\n")
        case "truncated":
            os.truncate(path, path.stat().st_size // 2)


# --- the layouts ------------------------------------------------------------------------------------------------------


def _place(layout: str, plan: Plan) -> str:
    """Path of the clip inside the folder."""
    if layout == "ave":
        return f"AVE/{plan.id}{plan.form.suffix}"
    return f"{plan.split}/{plan.digit}/{_kinetics_name(plan)}{plan.form.suffix}"


def _kinetics_name(plan: Plan) -> str:
    return f"{plan.id}_{0:06d}_{plan.seconds:06d}"


def _line(layout: str, plan: Plan) -> str:
    """The clip's row in the lists."""
    if layout == "ave":
        return f"{plan.digit}&{plan.id}&good&{plan.event[0]}&{plan.event[1]}"
    return f"{_kinetics_name(plan)},{plan.seconds},{plan.digit}"


def _write_lists(folder: Path, layout: str, plans: Sequence[Plan]) -> None:
    lines = {split: [_line(layout, plan) for plan in plans if plan.split == split] for split in SPLITS}
    if layout == "ave":
        every = [line for of_split in lines.values() for line in of_split]
        files = {"Annotations.txt": ["Category&VideoID&Quality&StartTime&EndTime", *every]}
        files |= {f"{split}Set.txt": of_split for split, of_split in lines.items()}
    else:
        files = {f"{split}.txt": of_split for split, of_split in lines.items()}
        files |= {"classes.txt": [str(digit) for digit in range(CLASSES)]}
    for name, of_file in files.items():
        (folder / name).write_text("\n".join(of_file) + "\n")


def _write_table(folder: Path, layout: str, plans: Sequence[Plan]) -> None:
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "title", "digit", "split"])
        for plan in plans:
            writer.writerow([_place(layout, plan), plan.title, plan.digit, plan.split])


def _write_info(folder: Path, settings: Mapping[str, object], plans: Sequence[Plan]) -> None:
    broken = {fault: [plan.id for plan in plans if plan.fault == fault] for fault in FAULTS}
    spoken = {plan.id: [path.stem for path in plan.spoken] for plan in plans}
    info = dict(settings) | {"broken": {fault: ids for fault, ids in broken.items() if ids}, "spoken": spoken}
    (folder / INFO).write_text(json.dumps(info, indent=2) + "\n")


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / INFO).is_file():
        raise UserError(f"{folder}: is not empty, and was not rendered: choose another --out")
    if not overwrite:
        raise UserError(f"{folder}: is not empty: choose another --out, or replace it with --overwrite")


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.rendered_clips", "Clips of digits, seen and heard, in a raw layout.")
    parser.add_argument("--mnist", required=True, metavar="DIR", help="folder with MNIST's four idx files")
    parser.add_argument("--fsdd", required=True, metavar="DIR", help="the Free Spoken Digit Dataset")
    parser.add_argument("--layout", choices=LAYOUTS, default="ave", help="of the folder (default: ave)")
    parser.add_argument("--clips", type=console.count, default=600, metavar="N", help="how many (default: 600)")
    parser.add_argument(
        "--picture-noise", type=float, default=60.0, metavar="LEVELS", help="greatest deviation, of 255 (default: 60)"
    )
    parser.add_argument("--snr-db", type=float, default=-18.0, metavar="DB", help="least, of the sound (default: -18)")
    parser.add_argument("--broken", action="store_true", help="break some files")
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
