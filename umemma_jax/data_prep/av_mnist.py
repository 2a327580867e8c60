"""AV-MNIST from raw files: handwritten digits (MNIST) beside spoken ones (FSDD), paired by digit.

python -m data_prep.av_mnist --mnist=DIR --fsdd=DIR --out=DIR

Three incompatible datasets bear this name. Here are two; both pair inside splits that the sources already have:

- `small`, the protocol of SMIL (arXiv 2103.05677, github.com/mengmenm/SMIL): three speakers, 1,050 training and 450
  test pairs, 105 and 45 of each digit. Recordings 0 to 14 are for test. Each recording and each image is used once.
- `large`: every image, 60,000 and 10,000. Recordings 0 to 4 of every speaker are for test, FSDD's official split. The
  recordings of a digit are used equally often, give or take one. With --degrade, see raw/degrade.py.

What is not given is downloaded from where tensorflow-datasets' `mnist` and `spoken_digit` come from. The latter is
FSDD 1.0.9, which lacks the sixth speaker: `small` is the same, `large` then has five speakers.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.raw.degrade import Degradation, add_white_noise, fit_energy_removal
from umemma_jax.data_prep.raw.download import fetch, registered_files, unpack
from umemma_jax.data_prep.raw.fsdd import SAMPLE_RATE, Recording, find_recordings, read_recording, split_recordings
from umemma_jax.data_prep.raw.mnist import CLASSES, IMAGE_SHAPE, read_mnist
from umemma_jax.errors import UserError

BRING = (
    "bring MNIST's four files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
    "t10k-labels-idx1-ubyte.gz) with --mnist=DIR, and the Free Spoken Digit Dataset (recordings/*.wav, "
    "https://github.com/Jakobovski/free-spoken-digit-dataset) with --fsdd=DIR"
)


@dataclass(frozen=True)
class Variant:
    """What sets a variant apart.

    Attributes:
      speakers: whose recordings are used; None means everyone's.
      test: indices of the recordings for test.
      every_image: whether recordings are used again until every image has one.
    """

    speakers: tuple[str, ...] | None
    test: range
    every_image: bool


VARIANTS = {
    "small": Variant(("jackson", "nicolas", "theo"), range(15), every_image=False),
    "large": Variant(None, range(5), every_image=True),
}


@dataclass(frozen=True)
class Pair:
    """One example: the position of an image in its split, and a recording of the same digit."""

    image: int
    recording: Recording

    @property
    def id(self) -> str:
        """Names both, e.g. `3_theo_17+00123`."""
        return f"{self.recording.path.stem}+{self.image:05d}"


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    mnist: str | None = None,
    fsdd: str | None = None,
    variant: str = "small",
    degrade: bool = False,
    image_energy_removed: float | None = None,
    snr_db: float | None = None,
    cache: str | None = None,
) -> None:
    """Prepares the dataset.

    Args:
      out: folder to make.
      seed: of pairing and noise.
      overwrite: whether `out` may be replaced.
      mnist: folder with the four files of MNIST; None downloads them.
      fsdd: folder of FSDD, or of its recordings; None downloads them.
      variant: "small" or "large".
      degrade: whether to degrade images and sound.
      image_energy_removed: with `degrade`; None means the default of `Degradation`.
      snr_db: likewise.
      cache: folder of downloads.

    Raises:
      UserError: a file is missing or damaged, there is no network, or `out` is in use or cannot be written.
    """
    degradation = _degradation(degrade, image_energy_removed, snr_db)
    description = "Handwritten digits (MNIST) and spoken digits (FSDD), paired by digit."
    source = {"command": "data_prep.av_mnist", "variant": variant, "seed": seed, "mnist": mnist, "fsdd": fsdd}
    if degradation:
        description += f" {degradation.description}"
        source |= asdict(degradation)
    writer = DatasetWriter(
        out,
        name=f"av_mnist_{variant}{'_degraded' if degradation else ''}",
        description=description,
        classes=[str(digit) for digit in range(CLASSES)],
        modalities={
            "image": Modality(kind="image", encoding="raw", shape=(*IMAGE_SHAPE, 1)),
            "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=SAMPLE_RATE),
        },
        source=source,
        overwrite=overwrite,
    )
    chosen = VARIANTS[variant]
    mnist_folder = Path(mnist) if mnist else _download_mnist(_downloads(cache))
    fsdd_folder = Path(fsdd) if fsdd else _download_fsdd(_downloads(cache))
    splits = read_mnist(mnist_folder)
    recordings = find_recordings(fsdd_folder, chosen.speakers)
    reading = console.progress(recordings, "reading recordings", len(recordings))
    waveforms = {recording: read_recording(recording.path) for recording in reading}

    by_split = split_recordings(recordings, chosen.test)
    removal = fit_energy_removal(splits["train"][0], degradation.image_energy_removed) if degradation else None
    with writer:
        for number, (split, (images, labels)) in enumerate(splits.items()):
            pairing, noise = np.random.default_rng([seed, number]).spawn(2)
            pairs = draw_pairs(labels, by_split[split], chosen.every_image, pairing)
            images = removal(images) if removal else images
            for pair in console.progress(pairs, f"writing {split}", len(pairs)):
                audio = waveforms[pair.recording]
                writer.write(
                    split,
                    id=pair.id,
                    label=pair.recording.digit,
                    image=images[pair.image][..., np.newaxis],
                    audio=add_white_noise(audio, degradation.snr_db, noise) if degradation else audio,
                )
    console.print_counts(open_dataset(out))


def draw_pairs(
    labels: np.ndarray, recordings: Sequence[Recording], every_image: bool, rng: np.random.Generator
) -> list[Pair]:
    """Pairs images and recordings of the same digit, at random and in random order.

    Args:
      labels: digits of the split's images, [N].
      recordings: those of the split.
      every_image: True pairs all images and uses recordings again, equally often give or take one. False uses every
        recording once, with an image of its own.
      rng: makes the draw.

    Raises:
      UserError: there are fewer images of a digit than recordings, and `every_image` is False.
    """
    pairs = []
    for digit in range(CLASSES):
        images = rng.permutation(np.flatnonzero(labels == digit))
        spoken = [recording for recording in recordings if recording.digit == digit]
        if not every_image and len(images) < len(spoken):
            raise UserError(
                f"MNIST: {len(images)} images of digit {digit} in a split, {len(spoken)} are needed: bring all of MNIST"
            )
        rounds = math.ceil(len(images) / len(spoken)) if every_image else 1
        order = [i for _ in range(rounds) for i in rng.permutation(len(spoken))]
        pairs += [Pair(int(image), spoken[i]) for image, i in zip(images, order, strict=False)]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _degradation(degrade: bool, image_energy_removed: float | None, snr_db: float | None) -> Degradation | None:
    given = {"image_energy_removed": image_energy_removed, "snr_db": snr_db}
    given = {name: value for name, value in given.items() if value is not None}
    if given and not degrade:
        raise UserError(f"--{next(iter(given))} means nothing without --degrade: add it")
    return Degradation(**given) if degrade else None


def _downloads(cache: str | None) -> Path:
    """Where downloads are kept. Raises UserError where there is no place for them."""
    folder = Path(os.path.expanduser(cache)) if cache else command.cache_folder()
    if folder is None:
        raise UserError("there is no folder to keep downloads in (no home, no temporary files): name one, --cache=DIR")
    return folder


def _download_mnist(cache: Path) -> Path:
    folder = cache / "mnist"
    fetch(registered_files("mnist"), folder, otherwise=BRING)
    return folder


def _download_fsdd(cache: Path) -> Path:
    (archive,) = fetch(registered_files("spoken_digit"), cache / "fsdd", otherwise=BRING)
    return unpack(archive)


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.av_mnist", "AV-MNIST: handwritten digits beside spoken ones.")
    parser.add_argument("--mnist", metavar="DIR", help="folder with MNIST's four idx files (default: download)")
    parser.add_argument("--fsdd", metavar="DIR", help="the Free Spoken Digit Dataset (default: download)")
    parser.add_argument("--variant", choices=VARIANTS, default="small", help="1,500 or 70,000 pairs (default: small)")
    parser.add_argument("--degrade", action="store_true", help="remove energy from images, add noise to sound")
    parser.add_argument(
        "--image_energy_removed",
        type=float,
        metavar="SHARE",
        help=f"with --degrade: share of the PCA energy to remove (default: {Degradation.image_energy_removed})",
    )
    parser.add_argument(
        "--snr_db", type=float, metavar="DB", help=f"with --degrade: of the sound (default: {Degradation.snr_db})"
    )
    parser.add_argument("--cache", metavar="DIR", help="folder of downloads (default: ~/.cache/umemma_jax)")
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
