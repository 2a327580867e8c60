"""A part of a file as FFmpeg reads it, through PyAV."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av
import numpy as np
from av.stream import Disposition

from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw import limits
from umemma_jax.data_prep.raw.frames import Frames
from umemma_jax.data_prep.raw.sounds import PREROLL, Sound
from umemma_jax.data_prep.raw.tracks import Track, cut_short, decode, reason

# Titles and the like need not be UTF-8; from PyAV 19 on that is no error.
_OPENING = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def read_part(
    raw: BinaryIO,
    start: float,
    end: float,
    frame_rate: float | None,
    size: int,
    sample_rate: int | None,
    max_pixels: int,
) -> tuple[list[bytes], np.ndarray, str | None, float | None]:
    """The frames and the sound of a file from `start` to `end`; the arguments are the attributes of `clips.ToClip`.

    Returns:
      JPEG files in order of time, empty without picture; int16 [S], empty without sound; why not all of it could be
      read, None if it could; the duration of all the file, s, None if it does not tell.

    Raises:
      Unreadable: it is no video file, beyond `limits`, or has nothing of what is wanted in that time.
    """
    wanted = start, end, frame_rate, size, sample_rate, max_pixels
    part = _read(raw, *wanted, seek=True) if start > PREROLL else None
    return part or _read(raw, *wanted, seek=False)


def _read(
    raw: BinaryIO,
    start: float,
    end: float,
    frame_rate: float | None,
    size: int,
    sample_rate: int | None,
    max_pixels: int,
    seek: bool,
) -> tuple[list[bytes], np.ndarray, str | None, float | None] | None:
    """As above; None if seeking did not lead to a place before the part from which all of it can be decoded."""
    frames = Frames(end - start, frame_rate, size, max_pixels) if frame_rate else None
    sound = Sound(end - start, sample_rate) if sample_rate else None
    with _open(raw, max_pixels) as file:
        zero = start + (file.start_time or 0) / av.time_base
        tracks, damage = _tracks(file, frames, sound, zero, None if seek else -start)
        if seek:
            try:
                file.seek(round((zero - PREROLL) * av.time_base))
            except av.FFmpegError:
                return None
        damage += decode(file, tracks)
        if any(track.missed_start for track in tracks):
            return None
        damage = damage or cut_short(file, raw, tracks, start, end)
        duration = None if file.duration is None else file.duration / av.time_base
    files = frames.files if frames else []
    samples = sound.samples() if sound else np.zeros(0, np.int16)
    if not files and not len(samples):
        when = f" from {start:g} s to {end:g} s" if tracks else " in it"
        raise Unreadable("; ".join(damage) or f"{_nothing(frame_rate, sample_rate)}{when}")
    return files, samples, "; ".join(damage) or None, duration


def _nothing(frame_rate: float | None, sample_rate: int | None) -> str:
    if frame_rate and sample_rate:
        return "neither picture nor sound"
    return "no picture" if frame_rate else "no sound"


@contextmanager
def _open(raw: BinaryIO, max_pixels: int) -> Iterator[av.container.InputContainer]:
    """The file as FFmpeg reads it, from its start. It has no other way out: a playlist leads nowhere.

    Raises:
      Unreadable: FFmpeg does not know what it is.
    """
    options = {"fd": str(raw.fileno()), "protocol_whitelist": "fd"} | limits.ffmpeg_options(max_pixels)
    raw.seek(0)
    start = raw.read(12)
    if start[:4] + start[8:] == b"RIFFWAVE":
        # Its header says all. To look for DTS in what calls itself PCM would take longer than the rest.
        options["max_probe_packets"] = "1"
    os.lseek(raw.fileno(), 0, os.SEEK_SET)  # not `raw.seek`, which would only move within its buffer
    try:
        file = av.open("fd:", options=options, **_OPENING)
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable(f"not a video or sound file: {reason(error)}") from error
    with file:
        yield file


def _tracks(
    file: av.container.InputContainer, frames: Frames | None, sound: Sound | None, zero: float, position: float | None
) -> tuple[list[Track], list[str]]:
    """The streams to read, and what keeps others from being read."""
    tracks, damage = [], []
    picture, heard = file.streams.best("video"), file.streams.best("audio")
    if picture and not picture.disposition & Disposition.attached_pic:  # the cover of an album
        tracks.append(Track("picture", picture, frames, zero, position))
    if heard:
        tracks.append(Track("sound", heard, sound, zero, position))
    elif file.streams.audio and sound:
        damage.append("sound: no sample rate, or no channels")
    return tracks, damage
