"""Windows of frames, and filters of their spectra."""

import numpy as np


def hann_window(size: int) -> np.ndarray:
    """Periodic Hann window, float64 [size]."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def symmetric_hann_window(size: int) -> np.ndarray:
    """Hann window that ends in 0 as it starts, float64 [size]."""
    return hann_window(size - 1)[np.arange(size) % (size - 1)]


def mel_filters(n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> np.ndarray:
    """Triangles of height 1 with corners equally spaced on the HTK mel scale, float32 [n_fft // 2 + 1, n_mels].

    Source: mel = 2595 log10(1 + f / 700); Young et al., The HTK Book, section 5.4.
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (f_min, f_max))
    corners = 700 * (10 ** (np.linspace(low, high, n_mels + 2) / 2595) - 1)
    return _triangles(np.arange(n_fft // 2 + 1) * sample_rate / n_fft, corners)


def kaldi_filters(n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> np.ndarray:
    """Triangles on the mel scale, of height 1, equally spaced and wide there, float32 [n_fft // 2 + 1, n_mels].

    Source: mel = 1127 ln(1 + f / 700), as in Kaldi's feat/mel-computations; filters narrower than a bin can be all 0.
    """

    def mel(frequency: np.ndarray) -> np.ndarray:
        return 1127 * np.log1p(np.asarray(frequency) / 700)

    corners = np.linspace(mel(f_min), mel(f_max), n_mels + 2)
    return _triangles(mel(np.arange(n_fft // 2 + 1) * sample_rate / n_fft), corners)


def _triangles(positions: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Of N triangles that begin, peak and end at three neighbours of corners [N + 2], heights at positions: [P, N]."""
    lower, middle, upper = corners[:-2], corners[1:-1], corners[2:]
    rising = (positions[:, None] - lower) / (middle - lower)
    falling = (upper - positions[:, None]) / (upper - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
