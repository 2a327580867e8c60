"""An encoder of a user's own, named in a config by its module path: `{"name": "tests.own_encoder", "width": 8}`."""

import flax.linen as nn


class Model(nn.Module):
    """Vectors [B, D] -> features [B, width]."""

    width: int = 8

    @nn.compact
    def __call__(self, x, mask=None, train=False):
        return nn.tanh(nn.Dense(self.width)(x))
