"""Several pictures of one field as the frames of a video."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from umemma_jax.data_prep.build.prep_report import DAMAGED
from umemma_jax.data_prep.build.results import Noted
from umemma_jax.data_prep.build.tasks import ContentTask, FileTask, Unreadable
from umemma_jax.data_prep.raw.clips import Clip


@dataclass(frozen=True)
class PicturesTask:
    """Pictures to read and convert, each by a task of its own that gives a JPEG file.

    Attributes:
      pictures: in order.
      where: they are, for people.
    """

    pictures: tuple[FileTask | ContentTask, ...]
    where: str

    def __call__(self) -> bytes | Noted:
        """A packed `Clip` of those that can be read; the others are noted. Raises Unreadable if none can."""
        frames, notes = [], defaultdict(list)
        for task in self.pictures:
            try:
                found = task()
            except Unreadable as error:
                notes[DAMAGED].append(f"{task}: {error}")
                continue
            if isinstance(found, Noted):
                for kind, note in found.notes.items():
                    notes[kind].append(f"{task}: {note}")
            frames.append(found.data if isinstance(found, Noted) else found)
        if not frames:
            raise Unreadable("; ".join(notes[DAMAGED]))
        packed = Clip(frames, np.zeros(0, np.int16)).pack()
        return Noted(packed, {kind: "; ".join(said) for kind, said in notes.items()}) if notes else packed

    def __str__(self) -> str:
        return self.where

    def fingerprint(self) -> str:
        """Changes when the bytes can."""
        return " ".join(task.fingerprint() for task in self.pictures)

    def value(self, data: bytes) -> list[bytes]:
        """JPEG files, in order."""
        return Clip.unpack(data).frames
