"""Encoders, stand-ins and a late-fusion head as one Linen module, with pure init and apply."""

import dataclasses
import functools
import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax import config, fusion
from umemma_jax.devices.sharding import Devices
from umemma_jax.encoders.layers import keep_rows
from umemma_jax.errors import UserError
from umemma_jax.missing import Capacities, Compacted, Layout, run_compacted
from umemma_jax.preprocess.ranges import unfit
from umemma_jax.task import LOGITS

LOOPED = ("depth", "layers")  # fields that say how many layers there are; each takes time to trace
MOST_LAYERS = 1000
NOT_FIELDS = ("parent", "name", "axis_name")  # of a Linen module that no user sets

PyTree = Any
Outputs = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Tower:
    """What the model does with one modality, all of it static.

    Attributes:
      name: of the modality.
      preprocess: (raw inputs, keys [B] or None, train) -> what the encoder takes, arrays [B, ...].
      encoder: () -> Linen module; its call (x, mask bool [B], train) returns features [B, D].
      frozen: no gradient reaches the encoder, and it runs in evaluation mode.
    """

    name: str
    preprocess: Callable[..., Any]
    encoder: Callable[[], nn.Module]
    frozen: bool = False


class LateFusion(nn.Module):
    """Uni-modal encoders joined by a late-fusion head, any of whose inputs may be absent.

    Attributes:
      towers: one per modality, in the column order of presence masks.
      outputs: how many numbers a head says of an example: K logits, or Gaussian evidence about T targets.
      family: name in `fusion.FAMILIES`, of what they say.
      head: name in `fusion.HEADS`.
      stand_in: what the head sees of an absent modality: `zero` feature, learned `token` feature (starts at zero), or
        the feature of the `mean` input of the training set.
      dropout: rate on the features while training.
    """

    towers: tuple[Tower, ...]
    outputs: int
    head: str = "linear"
    stand_in: str = "token"
    dropout: float = 0.0
    family: str = LOGITS

    def setup(self) -> None:
        """Makes the submodules."""
        self.encoders = {tower.name: tower.encoder() for tower in self.towers}
        self.heads = {tower.name: nn.Dense(self.outputs, precision=fusion.PRECISION) for tower in self.towers}
        names = tuple(tower.name for tower in self.towers)
        self.fusion = fusion.FAMILIES[self.family].heads[self.head].module(names, self.outputs)
        if self.stand_in == "token":
            self.tokens = {name: Token() for name in names}

    def __call__(
        self,
        inputs: Mapping[str, Any],
        present: jax.Array,
        train: bool = False,
        keys: jax.Array | None = None,
        layout: Layout | Compacted | None = None,
        means: Mapping[str, Any] | None = None,
    ) -> Outputs:
        """Everything the model says of a batch.

        Args:
          inputs: raw inputs per modality, as the pipeline gives them, B rows each.
          present: presence mask, bool [B, M].
          train: augmentation, dropout and batch statistics on.
          keys: typed PRNG keys [B], needed when train; a row's randomness depends on its own key only.
          layout: when given, encoders run on the rows that it takes, among which are all that `present` keeps.
          means: raw mean input per modality, 1 row each; needed by stand_in `mean`.

        Returns:
          `features/<m>` [B, D_m] (the stand-in where m is absent), `logits/<m>` [B, outputs] (0 where m is absent)
          and `logits` [B, outputs], all float32 or the encoders' dtype.
        """
        features, logits = self.encode(inputs, present, train, keys, layout)
        stand_ins = self.stand_ins(features, means)
        features, fused = self.fuse(features, stand_ins, present)
        outputs = {f"features/{m}": x for m, x in features.items()}
        outputs |= {f"logits/{m}": x for m, x in logits.items()}
        return {**outputs, "logits": fused}

    def encode(
        self,
        inputs: Mapping[str, Any],
        present: jax.Array,
        train: bool = False,
        keys: jax.Array | None = None,
        layout: Layout | Compacted | None = None,
    ) -> tuple[Outputs, Outputs]:
        """Features {m: [B, D_m]} and uni-modal logits {m: [B, outputs]}, both zero where m is absent."""
        features, logits, link = {}, {}, fusion.FAMILIES[self.family].link
        for index, tower in enumerate(self.towers):

            def rows(x: jax.Array, index: int = index) -> jax.Array:
                return x if layout is None else layout.take(x, index)

            mask = rows(present[:, index])
            row_keys = None if keys is None else _fold_in(rows(keys), index)
            raw = jax.tree.map(rows, inputs[tower.name])
            x = tower.preprocess(raw, row_keys, train)
            x = jax.tree.map(functools.partial(keep_rows, mask=mask), x)
            feature = self.encoders[tower.name](x, mask=mask, train=train and not tower.frozen)
            if tower.frozen:
                feature = jax.lax.stop_gradient(feature)
            if train and self.dropout:
                feature = _dropout(feature, _fold_in(row_keys, 1), self.dropout)
            kept = mask[:, None]
            feature = jnp.where(kept, feature, 0)
            logit = jnp.where(kept, link(self.heads[tower.name](feature.astype(jnp.float32))), 0)
            if layout is not None:
                feature, logit = layout.put(feature, index), layout.put(logit, index)
            features[tower.name], logits[tower.name] = feature, logit
        return features, logits

    def stand_ins(self, features: Outputs, means: Mapping[str, Any] | None = None) -> Outputs:
        """The feature {m: [1, D_m]} that stands for each absent modality."""
        return {tower.name: self._stand_in(tower, features[tower.name], means) for tower in self.towers}

    def _stand_in(self, tower: Tower, feature: jax.Array, means: Mapping[str, Any] | None) -> jax.Array:
        if self.stand_in == "mean":
            x = tower.preprocess(means[tower.name], None, False)
            return self.encoders[tower.name](x, mask=None, train=False)
        if self.stand_in == "token":
            return self.tokens[tower.name](feature.shape[-1])
        return jnp.zeros((1, feature.shape[-1]), feature.dtype)

    def fuse(self, features: Outputs, stand_ins: Outputs, present: jax.Array) -> tuple[Outputs, jax.Array]:
        """Features with the stand-ins in place, and the fused logits [B, outputs], under any presence mask."""
        filled = {}
        for index, tower in enumerate(self.towers):
            x, stand_in = features[tower.name], stand_ins[tower.name]
            filled[tower.name] = jnp.where(present[:, index, None], x, stand_in.astype(x.dtype))
        return filled, self.fusion(filled, present)


class Token(nn.Module):
    """A learned feature, [1, D], that starts at zero."""

    @nn.compact
    def __call__(self, width: int) -> jax.Array:
        """The feature of D = width."""
        return self.param("feature", nn.initializers.zeros, (1, width))


def _fold_in(keys: jax.Array, data: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)


def _dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


def encode_present(
    model: LateFusion, variables: PyTree, batch: Mapping[str, Any], capacities: Capacities, devices: Devices
) -> tuple[Outputs, Outputs]:
    """What `LateFusion.encode` gives of a batch, in evaluation: encoders run on little more than the rows they have.

    Args:
      model: the module.
      variables: of it.
      batch: of the pipeline, on the devices.
      capacities: choices for `missing.run_compacted`; without any, encoders run on all rows.
      devices: how its rows relate to the global batch.
    """

    def run(rows: Compacted | None) -> tuple[Outputs, Outputs]:
        return model.apply(variables, batch["inputs"], batch["present"], layout=rows, method="encode")

    return run_compacted(run, capacities, batch["present"], devices)


def start_from_heads(params: Mapping, head: str, prior: np.ndarray, family: str = LOGITS) -> dict:
    """Parameters whose fusion head starts from the uni-modal heads: at step 0 the model is their ensemble.

    Args:
      params: of the model.
      head: name in `fusion.HEADS`.
      prior: of the classes, as the heads have learned it, float32 [K] (see `prior.of_heads`); of targets anything.
      family: name in `fusion.FAMILIES`.
    """
    heads = {key.removeprefix("heads_"): value for key, value in params.items() if key.startswith("heads_")}
    return {**params, "fusion": fusion.FAMILIES[family].heads[head].from_heads(params["fusion"], heads, prior)}


def encoder_module(name: str) -> types.ModuleType:
    """`umemma_jax.encoders.<name>`, or a module of the user's own (a name with a dot); it exports `Model`."""
    path = name if "." in name else f"umemma_jax.encoders.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise UserError(f"encoder '{name}': no module {path} ({error}); name a module that exports Model") from error
    if not hasattr(module, "Model"):
        raise UserError(f"encoder '{name}': module {path} exports no Model")
    return module


def field_types(model: type) -> dict[str, Any]:
    """The fields of an encoder's Model that a user may set -> their types."""
    return {field.name: field.type for field in dataclasses.fields(model) if field.name not in NOT_FIELDS}


def checked_fields(model: type, given: Mapping[str, Any], others: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a user gives of an encoder, each of the right type.

    Args:
      model: the encoder's Model.
      given: name -> value.
      others: name -> type of what may be given besides the fields of the Model.
      where: it was given.

    Raises:
      UserError: a name is unknown, or a value of another type.
    """
    known = {**field_types(model), **others}
    encoder = model.__module__.removeprefix("umemma_jax.encoders.")
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{where}.{key:.80}: unknown, {encoder} takes {', '.join(sorted(known))}")
        if not config.fits(value, known[key]):
            kind = getattr(known[key], "__name__", known[key])
            raise UserError(f"{where}.{key}: {value!r:.80} is not of type {kind}")
        if reason := unfit(value):
            raise UserError(f"{where}.{key}: {reason}")
        if "." not in encoder:
            _check_own_field(f"{where}.{key}", key, value)
    return dict(given)


def _check_own_field(where: str, key: str, value: Any) -> None:
    """What holds of every number that an encoder of ours takes."""
    numbers = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(number, int) and number < 0 for number in numbers):
        raise UserError(f"{where}: {value} is negative")
    repeats = value if key in LOOPED else len(value) if isinstance(value, list | tuple) else 0
    if repeats > MOST_LAYERS:
        raise UserError(f"{where}: {repeats} layers, there are {MOST_LAYERS} at most")
