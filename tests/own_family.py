"""The weights of torch.nn.Sequential(Linear, ReLU, Linear) as an encoder of one's own."""

import flax.linen as nn

from umemma_jax.encoders.foreign import Format, Source, dense


class Model(nn.Module):
    width: int = 64
    features: int = 32

    @nn.compact
    def __call__(self, x, mask=None, train=False):  # x [B, C], mask bool [B]
        x = nn.relu(nn.Dense(self.width, name="hidden")(x))
        return nn.Dense(self.features, name="out")(x)  # [B, D]


def fields(source: Source) -> dict:  # of the Model, from the shapes of the checkpoint's tensors and its config.json
    return {"width": source.shapes["0.weight"][0], "features": source.shapes["2.weight"][0]}


def rules(source: Source, fields: dict) -> list:  # our parameters <- their tensors, with the hooks that transpose
    return [*dense("hidden", "0"), *dense("out", "2")]


FORMATS = (Format("nn.Sequential", markers=("0.weight", "2.weight"), fields=fields, rules=rules),)
