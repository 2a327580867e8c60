"""The quickstart's dataset, made from nothing: handwritten digits beside their telephone touch-tones in noise.

python -m data_prep.quickstart --out=DIR

Images are scikit-learn's bundled 8x8 digits. Sound is the key's DTMF tone (ITU-T Q.23), one low and one high frequency
together, somewhere in 0.2 s of white noise, which is so strong that sound alone does not settle the digit.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data_prep.build import console

SAMPLE_RATE = 8000
CLIP_SAMPLES = 1600
TONE_SAMPLES = (480, 960)  # shortest and longest tone
LOW_HZ = (697, 770, 852, 941)  # rows of the keypad
HIGH_HZ = (1209, 1336, 1477)  # columns
KEYS = {digit: (LOW_HZ[(digit - 1) // 3], HIGH_HZ[(digit - 1) % 3]) for digit in range(1, 10)} | {0: (941, 1336)}
# From sound alone, logistic regression on log power spectrograms then knows 82 to 85 % of the test digits, and 99 % if
# it is told the seven frequencies.
SNR_DB = -10.0
NOISE_DBFS = (-30.0, -18.0)  # range of the noise's level; four standard deviations stay within int16
TEST_EXAMPLES = 450
_FULL_SCALE = 32768
_BRIGHTEST = 16  # of scikit-learn's pixels


def prepare(out: str, seed: int = 0, overwrite: bool = False) -> None:
    """Prepares the dataset: 1,347 training and 450 test examples, classes in proportion.

    Args:
      out: folder to make.
      seed: of the split and the sound.
      overwrite: whether `out` may be replaced.

    Raises:
      UserError: `out` is in use or cannot be written.
    """
    writer = DatasetWriter(
        out,
        name="quickstart",
        description="Handwritten digits (scikit-learn, 8x8) and their telephone touch-tones in noise.",
        classes=[str(digit) for digit in range(10)],
        modalities={
            "image": Modality(kind="image", encoding="raw", shape=(8, 8, 1)),
            "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=SAMPLE_RATE),
        },
        source={"command": "data_prep.quickstart", "seed": seed, "snr_db": SNR_DB},
        overwrite=overwrite,
    )
    digits = load_digits()
    images = np.rint(digits.images * (255 / _BRIGHTEST)).astype(np.uint8)
    everything = np.arange(len(images))
    train, test = train_test_split(everything, test_size=TEST_EXAMPLES, stratify=digits.target, random_state=seed)
    rng = np.random.default_rng(seed)
    with writer:
        for split, rows in {"train": train, "test": test}.items():
            for row in console.progress(rows, f"writing {split}", len(rows)):
                label = int(digits.target[row])
                image = images[row][..., np.newaxis]
                writer.write(split, id=f"{row:04d}", label=label, image=image, audio=touch_tone(label, rng))
    console.print_counts(open_dataset(out))


def touch_tone(digit: int, rng: np.random.Generator) -> np.ndarray:
    """The DTMF tone of a digit in white noise.

    Start, length, both phases and the level are random. The ratio of the tone's power, while it sounds, to the noise's
    is SNR_DB.

    Returns:
      int16 [CLIP_SAMPLES].
    """
    length = rng.integers(*TONE_SAMPLES, endpoint=True)
    start = rng.integers(CLIP_SAMPLES - length, endpoint=True)
    seconds = np.arange(length) / SAMPLE_RATE
    phases = rng.uniform(0, 2 * np.pi, size=2)
    tone = sum(np.sin(2 * np.pi * hz * seconds + phase) for hz, phase in zip(KEYS[digit], phases, strict=True))

    clip = rng.standard_normal(CLIP_SAMPLES)
    clip[start : start + length] += tone * 10 ** (SNR_DB / 20)  # two sines of amplitude 1 have power 1 together
    clip *= _FULL_SCALE * 10 ** (rng.uniform(*NOISE_DBFS) / 20)
    return np.clip(np.rint(clip), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def main() -> None:
    """Runs the command line."""
    console.run(console.Parser("data_prep.quickstart", "Handwritten digits and touch-tones, made locally."), prepare)


if __name__ == "__main__":
    command.run(main)
