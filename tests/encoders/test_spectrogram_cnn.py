"""The small CNN on spectrograms: shapes, masks, and what pooling over time promises."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.encoders import parity
from tests.encoders.parity import normal
from umemma_jax.encoders.spectrogram_cnn import Model
from umemma_jax.errors import UserError


@pytest.mark.parametrize("frames, bins, channels, features", [(64, 32, (4, 8), 2 * 8 * 8), (101, 40, (4, 4, 6), 60)])
def test_features_are_mean_and_maximum_over_time_for_each_bin_and_channel(frames, bins, channels, features):
    model = Model(channels=channels)
    output, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), np.zeros((3, frames, bins)))
    assert output.shape == (3, features)


def test_too_many_blocks_for_the_spectrogram_are_the_users_mistake():
    with pytest.raises(UserError, match="64x8 spectrograms cannot be halved 4 times"):
        Model().init(jax.random.key(0), np.zeros((1, 64, 8)))


def test_a_sound_that_comes_later_has_the_same_features():
    sound = normal(1, 16, 16)
    spectrograms = np.zeros((2, 96, 16), np.float32)
    spectrograms[0, 16:32], spectrograms[1, 64:80] = sound, sound
    model = Model(channels=(4, 8))
    variables = jax.jit(model.init)(jax.random.key(0), spectrograms)
    early, late = jax.jit(model.apply)(variables, spectrograms)
    assert_allclose(early, late, atol=1e-6)
    assert np.abs(early).max() > 0.1


def test_padding_rows_change_nothing():
    parity.assert_padding_rows_change_nothing(Model(channels=(4, 8)), normal(6, 32, 16))
