"""The jitted training step of each stage: state in, state out.

Stage `unimodal` trains every encoder with its own head, all in one pass, by independent losses. Stage `fusion` trains
the encoders (those not frozen) and the fusion head under the missing policy.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from umemma_jax.devices.sharding import Devices
from umemma_jax.missing import Capacities, Compacted, Layout, Policy, draw, run_compacted
from umemma_jax.model import LateFusion
from umemma_jax.training import teachers
from umemma_jax.training.gradients import Gradients, Rule, of_each_loss
from umemma_jax.training.losses import ClassLoss
from umemma_jax.training.rows import FusionRows, fusion_rows

PyTree = Any
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """All that training carries from one step to the next; randomness is folded from the seed and the step.

    Attributes:
      step: int32 scalar, steps done in this stage.
      params: every parameter of the model, trained in this stage or not, by top-level module.
      batch_stats: running statistics, by top-level module.
      opt_state: slots of the trained parameters only.
      best: of each part that is judged by itself (see `judged_parts`) the best epoch so far, see `keep_best`; {}
        without validation.
      average: moving average of the trained parameters, by top-level module; {} without one.
      method: what a method carries of its own, see `gradients.Rule`; {} for most.
      teachers: variables of the encoders as the stage began, for a method that asks for them; else {}.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    best: PyTree
    average: PyTree = dataclasses.field(default_factory=dict)
    method: PyTree = dataclasses.field(default_factory=dict)
    teachers: PyTree = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """What a training step needs besides state and batch, all of it static.

    Attributes:
      name: `unimodal` or `fusion`.
      model: the Linen module.
      optimizer: over the parameters under `trained`.
      trained: top-level parameter groups that this stage trains.
      seed: of augmentation, dropout and masks.
      loss: of each row, from its logits and its label, see `losses`.
      row_losses: in stage `fusion`, of a method that has a loss of its own: of each row, see `methods`.
      rule: how that method makes one gradient of those of its losses.
      policy: of missing modalities, stage `fusion`.
      layout: stratified layout of the rows that are computed at once; None draws every row at random.
      incomplete_data: whether the training split lacks modalities by nature.
      capacities: choices of static numbers of rows per shard that the encoders run on where masks, not positions,
        decide; each step takes the first that holds its rows. Where none does, and without any, encoders run on all.
      accumulate: microbatches that a batch is computed in, one after another, so that memory is needed for one.
        Loss and gradients are those of the whole batch, but for batch norm, whose statistics are each microbatch's.
      ema: decay of the moving average of the parameters that is evaluated in their place; 0 for none.
      validated: whether epochs are judged, and the best ones kept.
    """

    name: str
    model: LateFusion
    optimizer: optax.GradientTransformation
    trained: tuple[str, ...]
    seed: int
    loss: Callable[[jax.Array, jax.Array], jax.Array] = dataclasses.field(default_factory=ClassLoss)
    row_losses: Callable[[FusionRows], jax.Array] | None = None
    rule: Rule = dataclasses.field(default_factory=Rule)
    policy: Policy | None = None
    layout: Layout | None = None
    incomplete_data: bool = False
    capacities: Capacities = ()
    accumulate: int = 1
    ema: float = 0.0
    validated: bool = True


def trained_groups(stage: str, model: LateFusion) -> tuple[str, ...]:
    """Top-level parameter groups that a stage trains."""
    if stage == "unimodal":
        return tuple(f"{part}_{t.name}" for t in model.towers for part in ("encoders", "heads"))
    encoders = tuple(f"encoders_{tower.name}" for tower in model.towers if not tower.frozen)
    tokens = tuple(f"tokens_{tower.name}" for tower in model.towers if model.stand_in == "token")
    return (*encoders, *tokens, "fusion")


def judged_parts(stage: str, model: LateFusion) -> dict[str, tuple[str, ...]]:
    """Name -> groups of what validation judges by itself: each modality, or in stage `fusion` all that is trained."""
    if stage == "fusion":
        return {stage: trained_groups(stage, model)}
    return {tower.name: (f"encoders_{tower.name}", f"heads_{tower.name}") for tower in model.towers}


def make_optimizer(stage: ConfigDict, total_steps: int, scales: Mapping[str, float]) -> optax.GradientTransformation:
    """Linear warm-up, cosine decay to 0, and a gradient norm clipped per parameter group.

    Clipping is per group so that one modality's gradients never shrink another's.

    Args:
      stage: `config.unimodal` or `config.fusion`.
      total_steps: of the stage.
      scales: parameter group -> factor on its learning rate.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=stage.learning_rate,
        warmup_steps=min(round(stage.warmup * total_steps), total_steps - 1),
        decay_steps=total_steps,
    )

    def one_group(scale: float) -> optax.GradientTransformation:
        def rate(step: jax.Array) -> jax.Array:
            return scale * schedule(step)

        clip = optax.clip_by_global_norm(stage.clip)
        if stage.optimizer == "sgd":
            decay = optax.add_decayed_weights(stage.weight_decay, _decayed)
            sgd = optax.sgd(rate, stage.momentum, nesterov=True, accumulator_dtype=stage.moments)
            return optax.chain(clip, decay, sgd)
        # The second moment stays float32: with b2 = 0.999 a step moves it by a thousandth of the way, and bfloat16, of
        # 8 bits, rounds away what is below 2 to 4 thousandths. The first moves by a tenth.
        adamw = optax.adamw(rate, weight_decay=stage.weight_decay, mask=_decayed, mu_dtype=stage.moments)
        return optax.chain(clip, adamw)

    transforms = {group: one_group(scale) for group, scale in scales.items()}
    return optax.multi_transform(transforms, {group: group for group in scales})


def _decayed(params: PyTree) -> PyTree:
    """Weight decay acts on kernels and embeddings, never on biases, norms or tokens, stacked by a scan or not."""
    undecayed = ("bias", "scale", "feature", "tokens", "prefix", "registers")
    return jax.tree_util.tree_map_with_path(lambda path, x: x.ndim > 1 and path[-1].key not in undecayed, params)


def init_variables(model: LateFusion, batch: Mapping[str, Any], seed: int, means: PyTree) -> PyTree:
    """Fresh parameters and batch statistics, from the shapes of a batch."""
    rows = jax.tree.map(lambda x: x[:1], batch["inputs"])
    present = jnp.ones((1, len(model.towers)), bool)
    init = functools.partial(model.init, train=False, means=means)
    # Runs once: on CPU, compiling many random draws with optimisation takes four times as long as without; XLA's GPU
    # backend has no such mode.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(init, compiler_options=options)
    variables = init(jax.random.key(seed), rows, present)
    return {"params": dict(variables["params"]), "batch_stats": dict(variables.get("batch_stats", {}))}


def init_state(spec: StageSpec, variables: PyTree) -> TrainState:
    """State before the stage's first step."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state = spec.optimizer.init({group: params[group] for group in spec.trained})
    parts = judged_parts(spec.name, spec.model) if spec.validated else {}
    best = {part: _not_judged(params, batch_stats, groups) for part, groups in parts.items()}
    # A copy: the state is donated, and one buffer cannot be donated twice.
    average = jax.tree.map(jnp.copy, {group: params[group] for group in spec.trained}) if spec.ema else {}
    method = spec.rule.first_state(spec.model)
    taught_by = teachers.of(spec.model, variables) if spec.rule.teachers else {}
    return TrainState(jnp.int32(0), params, batch_stats, opt_state, best, average, method, taught_by)


def variables_to_evaluate(state: TrainState) -> PyTree:
    """The model's variables, averaged over the steps where the stage keeps an average."""
    return {"params": {**state.params, **state.average}, "batch_stats": state.batch_stats}


def _averaged(state: TrainState, trained: PyTree, ema: float) -> PyTree:
    """The moving average after a step; young ones forget faster: decay min(ema, (1 + t) / (10 + t)).

    Source: the schedule of TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """
    if not ema:
        return {}
    decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
    return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.average, trained)


def make_step(spec: StageSpec, means: PyTree) -> Callable[[TrainState, PyTree, Devices], tuple[TrainState, Metrics]]:
    """The stage's step for `sharding.compile_step`; means as in `LateFusion.__call__`."""

    def step(state: TrainState, batch: PyTree, devices: Devices) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(jax.random.key(spec.seed), state.step)
        numbers = devices.row_numbers(len(batch["weight"]))
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, numbers)
        # Before the batch is split, so that each row has the key and the share that it has in the whole batch.
        batch = {**batch, "keys": keys, "share": _shares(spec, batch, devices)}
        trained = {group: state.params[group] for group in spec.trained}

        def compute(batch_stats: PyTree, rows: PyTree) -> tuple[PyTree, PyTree, Metrics]:
            return _gradients(spec, means, state.params, batch_stats, rows, devices, state.teachers)

        def add(carry: tuple[PyTree, PyTree], rows: PyTree) -> tuple[tuple[PyTree, PyTree], Metrics]:
            batch_stats, gradients, metrics = compute(carry[0], rows)
            return (batch_stats, optax.tree.add(carry[1], gradients)), metrics

        if spec.accumulate == 1:
            batch_stats, gradients, metrics = compute(state.batch_stats, batch)
        else:
            carry = (state.batch_stats, (optax.tree.zeros_like(trained),) * spec.rule.losses)
            parts = microbatches(batch, spec.accumulate, devices.shards)
            (batch_stats, gradients), metrics = jax.lax.scan(add, carry, parts)
            metrics = jax.tree.map(lambda x: x.sum(axis=0), metrics)
        gradients, metrics = devices.total((gradients, metrics))
        names = tuple(tower.name for tower in spec.model.towers)
        found = Gradients(gradients, names, metrics.pop("sums", {}), state.method, state.step, step_key)
        gradients, method = spec.rule.apply(found)
        updates, opt_state = spec.optimizer.update(gradients, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        metrics = {**metrics, "gradient_norm": optax.tree.norm(gradients)}
        new_state = state.replace(
            step=state.step + 1,
            params={**state.params, **trained},
            batch_stats=batch_stats,
            opt_state=opt_state,
            average=_averaged(state, trained, spec.ema),
            method=method,
        )
        return new_state, metrics

    return step


def microbatches(batch: PyTree, count: int, shards: int) -> PyTree:
    """Arrays [B, ...] as [count, B / count, ...]: each microbatch has an equal part of every shard's rows.

    So no row leaves its device.
    """

    def split(x: jax.Array) -> jax.Array:
        parts = x.reshape(shards, count, -1, *x.shape[1:])
        return parts.swapaxes(0, 1).reshape(count, -1, *x.shape[1:])

    return jax.tree.map(split, batch)


def _shares(spec: StageSpec, batch: PyTree, devices: Devices) -> jax.Array:
    """What each loss of a row adds to the batch's, float32 [B, L]: its weight over the number of rows that have any.

    In stage `unimodal` a row has a loss per modality, of which only those that it has count; in stage `fusion` one.
    So a batch of heavy rows counts more than one of light ones: what a row adds does not hang on the others' weights.
    """
    weight = batch["weight"][:, None]
    if spec.name == "unimodal":
        weight = weight * batch["present"]
    rows = devices.total((weight > 0).sum(axis=0, keepdims=True))
    return weight / jnp.maximum(rows, 1)


def _gradients(
    spec: StageSpec,
    means: PyTree,
    params: PyTree,
    batch_stats: PyTree,
    batch: PyTree,
    devices: Devices,
    taught_by: PyTree | None = None,
) -> tuple[PyTree, tuple[PyTree, ...], Metrics]:
    """New batch statistics, and what these rows add to the gradients of each loss and to the metrics.

    The rows are a batch or one of its microbatches, with `keys` [B] and `share` [B, L] (see `_shares`).
    """
    objective = _unimodal_objective if spec.name == "unimodal" else _fusion_objective
    present, layout = batch["present"], None
    if spec.name == "fusion":
        present, layout = _masked(spec, batch)
    batch = {**batch, "present": present}

    def run(layout: Layout | Compacted | None) -> tuple[PyTree, PyTree, Metrics]:
        rows = {**batch, "taught": teachers.features(spec.model, taught_by, batch, layout) if taught_by else {}}

        def loss(trained: PyTree) -> tuple[jax.Array, PyTree]:
            return objective(spec, means, {**params, **trained}, batch_stats, rows, layout)

        trained = {group: params[group] for group in spec.trained}
        gradients, (statistics, metrics) = of_each_loss(loss, trained, spec.rule.losses)
        return statistics, gradients, metrics

    if layout is not None:
        return run(layout)
    # The gradient is taken inside: that of a switch would keep what the backward passes of ALL its branches need.
    return run_compacted(run, spec.capacities, present, devices)


def _masked(spec: StageSpec, batch: PyTree) -> tuple[jax.Array, Layout | None]:
    """The presence mask of stage `fusion`, and the layout whose rows are all that it keeps, if there is one."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(batch["keys"], len(spec.model.towers))
    if spec.layout is None:
        return draw(spec.policy, keys, batch["present"]), None
    present, _ = spec.layout.draw(keys, batch["present"])
    # Rows that lack what their position keeps are not among the layout's.
    return present, None if spec.incomplete_data else spec.layout


def _unimodal_objective(spec, means, params, batch_stats, batch, layout):  # noqa: ANN001, ANN202
    """Sum over modalities of the mean loss of the rows that have it."""
    (_, logits), updates = spec.model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["inputs"],
        batch["present"],
        train=True,
        keys=batch["keys"],
        layout=layout,
        mutable=["batch_stats"],
        method="encode",
    )
    metrics = {}
    for index, tower in enumerate(spec.model.towers):
        rows = spec.loss(logits[tower.name], batch["label"])
        metrics[f"loss/{tower.name}"] = (batch["share"][:, index] * rows).sum()
    loss = sum(metrics.values())
    return loss, (_statistics(batch_stats, updates), {"loss": loss, **metrics})


def _fusion_objective(spec, means, params, batch_stats, batch, layout):  # noqa: ANN001, ANN202
    """Mean loss of the fused logits under the drawn presence mask, or of a method's own losses."""
    outputs, updates = spec.model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["inputs"],
        batch["present"],
        train=True,
        keys=batch["keys"],
        layout=layout,
        means=means,
        mutable=["batch_stats"],
    )
    metrics = {}
    if spec.row_losses is None:
        rows = spec.loss(outputs["logits"], batch["label"])
    else:
        variables = {"params": params, "batch_stats": batch_stats}
        seen = fusion_rows(spec.model, spec.loss, means, variables, batch, outputs)
        rows = spec.row_losses(seen)
        if spec.rule.sums:
            metrics["sums"] = jax.lax.stop_gradient(spec.rule.sums(seen))
    share = batch["share"][:, 0] if rows.ndim == 1 else batch["share"]
    losses = (share * rows).sum(axis=0)  # of a method with several, [L]
    return losses, (_statistics(batch_stats, updates), {"loss": losses.sum(), **metrics})


def _statistics(old: PyTree, updates: PyTree) -> PyTree:
    return {**old, **updates.get("batch_stats", {})}


# The best epoch of each part.


def _of_groups(tree: Mapping[str, PyTree], groups: tuple[str, ...]) -> PyTree:
    return {group: tree[group] for group in groups if group in tree}


def _not_judged(params: PyTree, batch_stats: PyTree, groups: tuple[str, ...]) -> PyTree:
    # Copies: the state is donated, and one buffer cannot be donated twice.
    return {
        "params": jax.tree.map(jnp.copy, _of_groups(params, groups)),
        "batch_stats": jax.tree.map(jnp.copy, _of_groups(batch_stats, groups)),
        "score": jnp.float32(-jnp.inf),
        "epoch": jnp.int32(0),
        "improved": jnp.int32(0),
    }


def keep_best(state: TrainState, scores: Mapping[str, jax.Array], epoch: jax.Array) -> TrainState:
    """State whose `best` holds, per part, the variables of the best epoch so far.

    Of equals it is the later one, and so it is where no score is defined (NaN): no epoch is known to be better. The
    first of equals stays in `improved`.
    """
    variables = variables_to_evaluate(state)

    def better(part: str, old: PyTree) -> PyTree:
        new = {
            "params": _of_groups(variables["params"], tuple(old["params"])),
            "batch_stats": _of_groups(variables["batch_stats"], tuple(old["batch_stats"])),
            "score": jnp.float32(scores[part]),
            "epoch": jnp.int32(epoch),
            "improved": jnp.where(scores[part] <= old["score"], old["improved"], jnp.int32(epoch)),
        }
        worse = new["score"] < old["score"]
        return jax.tree.map(lambda a, b: jnp.where(worse, b, a), new, old)

    return state.replace(best={part: better(part, old) for part, old in state.best.items()})


def epochs_without_better(state: TrainState, epoch: int) -> int:
    """How many epochs ago the last part was that got better; 0 without validation."""
    improved = jax.device_get([best["improved"] for best in state.best.values()])
    return epoch - int(max(improved, default=epoch))


def best_variables(state: TrainState) -> PyTree:
    """Variables in which every part stands at its best epoch; without validation at the last."""
    variables = variables_to_evaluate(state)
    params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
    for best in state.best.values():
        params |= best["params"]
        batch_stats |= best["batch_stats"]
    return {"params": params, "batch_stats": batch_stats}
