"""Waveforms from RIFF WAVE files, with truncation detected for certain."""

import io
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umemma_jax.errors import UserError


@dataclass(frozen=True)
class Pcm:
    """What is in a WAV file.

    Attributes:
      sample_rate: Hz.
      channels: how many.
      width: bytes of a sample of one channel, little-endian; unsigned if it is 1.
      data: the samples, channel by channel within each frame.
    """

    sample_rate: int
    channels: int
    width: int
    data: bytes


def read_wav(path: Path, sample_rate: int) -> np.ndarray:
    """Reads a mono, 16-bit PCM file.

    Args:
      path: the file.
      sample_rate: Hz that it must have.

    Returns:
      int16 array [S], little-endian.

    Raises:
      UserError: the file cannot be read, is not RIFF WAVE, truncated, empty, or of another format.
    """
    pcm = read_pcm(path)
    convert = f"convert it to {sample_rate} Hz, mono, 16 bit"
    if pcm.sample_rate != sample_rate:
        raise UserError(f"{path}: sample rate {pcm.sample_rate} Hz instead of {sample_rate}: {convert}")
    if pcm.channels != 1:
        raise UserError(f"{path}: {pcm.channels} channels instead of 1: {convert}")
    if pcm.width != 2:
        raise UserError(f"{path}: {8 * pcm.width} bits a sample instead of 16: {convert}")
    return np.frombuffer(pcm.data, "<i2")


def read_pcm(path: Path) -> Pcm:
    """Reads a PCM file of any rate, number of channels and number of bits.

    Raises:
      UserError: the file cannot be read, is not RIFF WAVE, truncated, or empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise UserError(f"{path}: not a RIFF WAVE file: download it again, or remove it if it is something else")
    declared = 8 + int.from_bytes(data[4:8], "little")  # the size field counts from after itself
    if len(data) < declared:
        raise UserError(f"{path}: truncated: {len(data)} bytes instead of {declared}: download it again")
    try:
        with wave.open(io.BytesIO(data)) as file:
            form = file.getparams()
            pcm = file.readframes(form.nframes)
    except (wave.Error, EOFError) as error:
        raise UserError(f"{path}: not a readable PCM file ({error or 'ends too early'}): download it again") from error

    frames = len(pcm) // (form.nchannels * form.sampwidth)
    if frames < form.nframes:
        raise UserError(f"{path}: truncated: {frames} samples instead of {form.nframes}: download it again")
    if not pcm:
        raise UserError(f"{path}: holds no samples: download it again")
    return Pcm(form.framerate, form.nchannels, form.sampwidth, pcm)
