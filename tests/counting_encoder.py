"""An encoder that needs to know how many rows there are, as no program for any number of them can."""

import flax.linen as nn


class Model(nn.Module):
    """Pixels [B, H, W, C] -> features [B, 2]."""

    @nn.compact
    def __call__(self, x, mask=None, train=False):
        return nn.Dense(2)(x.reshape(len(x), -1))
