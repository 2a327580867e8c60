"""Training step of two ResNet-18s, for frames and sound, in late fusion: ours against the same model in PyTorch.

python -m benchmarks.audio_visual_step [--batch=N] [--precision=fp32] [--xla=OPTION=VALUE] [--quick]

Three frames of 224x224 pixels beside 3 s of sound at 16 kHz, whose log spectrogram of 257 bins and 299 frames is
computed in the step, from int16 samples; a linear head, cross-entropy, gradients clipped per encoder, AdamW. PyTorch
runs `transformers`' ResNetModel and `torch.stft`, bfloat16 by autocast, and on a GPU `torch.compile`d too.

`complete` is without missing augmentation, as PyTorch's step is: batch norm makes the rows of a batch depend on each
other, and counts, in ours, only those that keep the modality. `stratified` is ours under missing augmentation by
thirds. Otherwise all is as in `vision_language_step`.

Needs `pip install -e '.[torch]'`.
"""

import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import late_fusion_step, workload
from umemma_jax.data.kinds import Modality

PyTree = Any

FRAMES = Modality(
    kind="video", encoding="jpeg", frame_rate=1.0, max_frames=3, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)
)
SOUND = Modality(kind="audio", encoding="pcm_s16le", sample_rate=16000)
SPECTROGRAM = {"win_length": 512, "hop_length": 159, "centre": False, "mean": -4.503877, "std": 2 * 5.141276}
CLASSES, SIDE, SECONDS = 31, 224, 3  # as of Kinetics-Sound
SMALL_SIDE, SMALL_SECONDS = 32, 0.2
SMALL = {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64]}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    task = late_fusion_step.Task(
        encoders="two ResNet-18s",
        families={"frames": "resnet", "sound": "resnet"},
        modalities={"frames": FRAMES, "sound": SOUND},
        preprocess={"frames": {"frames": FRAMES.max_frames}, "sound": {"form": "stft", **SPECTROGRAM}},
        classes=CLASSES,
        layouts=("complete", "stratified"),
        pytorch_encoders=pytorch_encoders,
        batch=example_batch,
    )
    late_fusion_step.compare(task, late_fusion_step.parse(__doc__, argv))


def pytorch_encoders(pytorch: types.ModuleType, quick: bool) -> Mapping[str, Any]:
    """By fields of `transformers`' ResNetConfig."""
    fields = SMALL if quick else {}
    return {
        "frames": pytorch.FrameResNet18(FRAMES, **fields),
        "sound": pytorch.SpectrogramResNet18(SPECTROGRAM, **fields),
    }


def example_batch(batch_size: int, quick: bool) -> PyTree:
    """A training batch of noise, as NumPy arrays; as many frames as the step takes, so that none is drawn."""
    rng = np.random.default_rng(0)
    side, seconds = (SMALL_SIDE, SMALL_SECONDS) if quick else (SIDE, SECONDS)
    shape, samples = (batch_size, FRAMES.max_frames, side, side, 3), round(seconds * SOUND.sample_rate)
    frames = {
        "frames": rng.integers(0, 256, shape, np.uint8),
        "count": np.full(batch_size, FRAMES.max_frames, np.int32),
    }
    sound = {
        "samples": rng.integers(-(2**13), 2**13, (batch_size, samples), np.int16),
        "length": np.full(batch_size, samples, np.int32),
    }
    return {
        "inputs": {"frames": frames, "sound": sound},
        "present": np.ones((batch_size, 2), bool),
        "label": rng.integers(0, CLASSES, batch_size).astype(np.int32),
        "weight": np.ones(batch_size, np.float32),
    }


if __name__ == "__main__":
    workload.run(main)
