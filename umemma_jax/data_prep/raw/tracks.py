"""The streams of a file that FFmpeg reads, packet by packet: what is decoded, how far, and what is damaged."""

import contextlib
import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import av

_SLACK = 0.5  # s by which a stream may be shorter than the file says
# These tell in their header how long they are; of others FFmpeg guesses it from what is there.
_TELL_DURATION = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "asf", "avi", "flac"}
_UNTOLD_RIFF = 8 + 0xFFFFFFFF  # of a file that is sent while it is made
_STREAMED = 1 << 30  # pictures, by the header of an AVI file that FFmpeg sends while it is made


def decode(file: av.container.InputContainer, tracks: Sequence["Track"]) -> list[str]:
    """Reads until every track has all it wants; returns what went wrong."""
    by_index = {track.stream.index: track for track in tracks}
    damage = []
    try:
        for packet in file.demux([track.stream for track in tracks]) if tracks else ():
            by_index[packet.stream.index].decode(packet)  # its own index is wrong where it ends a stream
            if all(track.ended for track in tracks if track.collector):
                break
    except av.FFmpegError as error:
        damage.append(reason(error))
    for track in tracks:
        track.finish()
    return [f"{track.name}: {track.damage}" for track in tracks if track.damage] + damage


def cut_short(
    file: av.container.InputContainer, raw: BinaryIO, tracks: Sequence["Track"], start: float, end: float
) -> list[str]:
    """Says which stream ends before the time that the file's header gives, as in a truncated file."""
    if all(track.ended for track in tracks if track.collector):
        return []
    if file.format.name == "wav":
        return _riff_cut_short(raw)
    if file.format.name not in _TELL_DURATION:
        return []
    known = [track for track in tracks if track.position is not None]
    last = max(known, key=lambda track: track.position, default=None)
    damage = []
    for track in known:
        told = _told_end(file, track, track is last)
        if told is None or track.ended:
            continue
        told -= track.zero
        if track.position < min(told, end - start) - _SLACK:
            damage.append(f"{track.name}: ends at {track.position + start:.2f} s, not at {told + start:.2f} s")
    return damage


def _told_end(file: av.container.InputContainer, track: "Track", is_last: bool) -> float | None:
    """When the header says that a stream ends, s on the file's clock; None if it does not say.

    Where it only says how long all of the file is, that counts for the stream that ends last.
    """
    stream = track.stream
    if file.format.name == "avi":  # of a file that is too short FFmpeg lowers the durations, not the number of pictures
        picture = file.streams.best("video")
        is_cut = picture and (picture.duration or 0) < picture.frames < _STREAMED
        return float(picture.frames * picture.time_base) if is_cut and is_last else None
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base) if track.collector else None
    if file.duration is not None and is_last:
        return (file.duration + (file.start_time or 0)) / av.time_base
    return None


def _riff_cut_short(raw: BinaryIO) -> list[str]:
    """Likewise of a WAV file, whose length FFmpeg takes from what is there."""
    raw.seek(0)
    header, size = raw.read(8), os.fstat(raw.fileno()).st_size
    told = 8 + int.from_bytes(header[4:], "little")  # which counts from after itself
    is_told = header[:4] == b"RIFF" and told != _UNTOLD_RIFF
    return [f"sound: truncated: {size:,} bytes of {told:,}"] if is_told and size < told - 1 else []  # 1 may be padding


class Collector(Protocol):
    """Makes of the frames of a stream what a clip has of it. Times count from the start of the clip, in seconds."""

    done: bool  # whether it wants no more frames

    def prepare(self, stream: av.VideoStream | av.AudioStream) -> None:
        """Says which stream's frames will come; raises ValueError if they are beyond `limits`."""

    def duration(self, frame: av.VideoFrame | av.AudioFrame) -> float:
        """Of a frame, s."""

    def take(self, frame: av.VideoFrame | av.AudioFrame, time: float) -> None:
        """Takes the next frame."""

    def finish(self, end: float) -> None:
        """Nothing more comes; `end` is where the last frame ends."""


class Track:
    """A stream, what collects its frames, and how far it has been read.

    Times count from the start of the clip.

    Attributes:
      collector: None if the stream is not wanted: it is not decoded, and tells only where it ends.
      position: s, where the next frame is expected; None if it is not known.
      ended: whether no more packets are wanted.
      damage: what ended it too early.
      missed_start: whether, although the file was to be read from before the clip, the first frame comes after the
        clip's start, nobody knows when, or none comes: what it refers to may lie further back.
    """

    def __init__(
        self,
        name: str,
        stream: av.VideoStream | av.AudioStream,
        collector: Collector | None,
        zero: float,
        position: float | None,
    ) -> None:
        self.name = name
        self.stream = stream
        self.collector = collector
        self.zero = zero  # s on the file's clock
        self.position = position
        self.ended = False
        self.damage: str | None = None
        self.missed_start = False
        if collector is None:
            return
        if stream.codec_context is None:
            self.ended, self.damage = True, "no decoder for it"
            return
        self._is_pcm = stream.codec_context.name.startswith("pcm_")  # of which any part of a packet can be decoded
        stream.codec_context.thread_count = 1  # each process has a core
        try:
            collector.prepare(stream)
        except ValueError as error:
            self.ended, self.damage = True, str(error)

    def decode(self, packet: av.Packet) -> None:
        """Passes on what is in a packet, unless the stream has ended."""
        if self.ended:
            return
        if self.collector is None:
            if packet.pts is not None:
                self.position = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
            return
        if packet.is_corrupt and not self._is_pcm:
            self._stop("a damaged packet")
            return
        try:
            for frame in self.stream.decode(packet):
                self._pass_on(frame)
        except (av.FFmpegError, ValueError) as error:
            self._stop(reason(error))

    def finish(self) -> None:
        """Takes what the decoder holds back; nothing more will come."""
        if self.collector is None:
            return
        if not self.ended:
            with contextlib.suppress(av.FFmpegError):  # it is at its end already
                for frame in self.stream.decode(None):
                    self._pass_on(frame)
            self.missed_start |= self.position is None
        if self.position is not None:
            try:
                self.collector.finish(self.position)
            except (av.FFmpegError, ValueError) as error:
                self.damage = reason(error)

    def _pass_on(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        if frame.pts is not None:
            time = frame.time - self.zero
        else:
            time = self.position if frame.dts is None else float(frame.dts * frame.time_base) - self.zero
        if self.position is None and (time is None or time > 0):
            self.missed_start = self.ended = True
        if self.ended:
            return
        if frame.is_corrupt and time >= 0:
            self._stop("a damaged frame")
            return
        self.collector.take(frame, time)
        self.position = time + self.collector.duration(frame)
        self.ended = self.collector.done
        self.damage = None

    def _stop(self, damage: str) -> None:
        """Damage ends the stream, unless it lies before the clip, as what is cut in two by seeking does."""
        self.ended = self.position is not None and self.position >= 0
        self.damage = damage


def reason(error: Exception) -> str:
    """What FFmpeg says."""
    return getattr(error, "strerror", None) or str(error)
