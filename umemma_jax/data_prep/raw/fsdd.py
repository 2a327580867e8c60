"""The recordings of the Free Spoken Digit Dataset: https://github.com/Jakobovski/free-spoken-digit-dataset."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw import wav
from umemma_jax.data_prep.raw.files import open_file
from umemma_jax.errors import UserError

SAMPLE_RATE = 8000
TAKES = range(50)  # indices of the recordings of one digit by one speaker
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[A-Za-z]+)_(?P<index>\d+)\.wav")


@dataclass(frozen=True, order=True)
class Recording:
    """One file `{digit}_{speaker}_{index}.wav`."""

    digit: int
    speaker: str
    index: int
    path: Path


def find_recordings(folder: Path, speakers: Collection[str] | None = None) -> list[Recording]:
    """Lists the recordings 0 to 49 of every digit by every speaker.

    Args:
      folder: `recordings/`, or the repository that has it.
      speakers: those wanted; None means everyone in the folder.

    Returns:
      Sorted by digit, speaker and index.

    Raises:
      UserError: there are none, a file's name is not of the pattern, or a recording is missing.
    """
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise UserError(
            f"{folder}: no recordings ({{digit}}_{{speaker}}_{{index}}.wav): "
            "point --fsdd at the Free Spoken Digit Dataset or at its folder recordings"
        )
    recordings = [_parse(path) for path in paths]
    wanted = sorted(speakers if speakers is not None else {recording.speaker for recording in recordings})
    found = {(r.digit, r.speaker, r.index): r for r in recordings}
    _check_complete(folder, found, wanted)
    return [found[digit, speaker, index] for digit in range(10) for speaker in wanted for index in TAKES]


def split_recordings(recordings: Sequence[Recording], test: range) -> dict[str, list[Recording]]:
    """Recordings of the split "test", those whose index is in the range, and of "train", the others."""
    return {
        "train": [recording for recording in recordings if recording.index not in test],
        "test": [recording for recording in recordings if recording.index in test],
    }


def read_recording(path: Path) -> np.ndarray:
    """Reads a recording, which is plain PCM: FFmpeg, which reads all other sound, takes 20 times as long to open it.

    Returns:
      int16 [S], little-endian.

    Raises:
      UserError: the file cannot be read, is truncated, empty, or not WAV of `SAMPLE_RATE` Hz, mono, 16 bits.
    """
    try:
        with open_file(path) as file:
            data = file.read()
        return wav.samples(data, SAMPLE_RATE)
    except Unreadable as error:
        form = f"PCM, mono, {SAMPLE_RATE} Hz, 16 bits"
        raise UserError(f"{path}: {error}: bring another copy, or convert it to {form}") from error


def _parse(path: Path) -> Recording:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path}: the name is not of the form {{digit}}_{{speaker}}_{{index}}.wav: rename or remove it")
    return Recording(int(match["digit"]), match["speaker"], int(match["index"]), path)


def _check_complete(folder: Path, found: Collection[tuple[int, str, int]], speakers: Sequence[str]) -> None:
    for speaker in speakers:
        for digit in range(10):
            missing = [index for index in TAKES if (digit, speaker, index) not in found]
            if missing:
                raise UserError(
                    f"{folder}: {len(TAKES) - len(missing)} recordings of digit {digit} by {speaker} instead of "
                    f"{len(TAKES)}: bring {digit}_{speaker}_{missing[0]}.wav" + (" and others" if missing[1:] else "")
                )
