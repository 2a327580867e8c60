"""From what the pipeline delivers to what an encoder takes, inside the jitted step: one class per kind of modality.

A preprocess object is a frozen, hashable dataclass, static under `jax.jit`. Its fields are the keys that a config may
give under `inputs.<modality>.preprocess`; what the dataset itself states (channel statistics, sample rate) are defaults
that a config may overrule. Augmentation happens in training only, each row from its own key, so that a row's result
does not depend on the batch around it. Strength 0 turns an augmentation off.
"""

from umemma_jax.preprocess.audio import Fbank, LogMel, Stft, Waveform
from umemma_jax.preprocess.filters import hann_window, kaldi_filters, mel_filters
from umemma_jax.preprocess.image import Image, affine
from umemma_jax.preprocess.kinds import KINDS, Preprocess, build, form_of
from umemma_jax.preprocess.tabular import Columns, Tabular
from umemma_jax.preprocess.text import Text
from umemma_jax.preprocess.video import Video

__all__ = [
    "KINDS",
    "Columns",
    "Fbank",
    "Image",
    "LogMel",
    "Preprocess",
    "Stft",
    "Tabular",
    "Text",
    "Video",
    "Waveform",
    "affine",
    "build",
    "form_of",
    "hann_window",
    "kaldi_filters",
    "mel_filters",
]
