"""The stages of one config made concrete: the description of each, and its training batches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import methods, missing
from umemma_jax.data.pipeline import steps_per_epoch, train_batches
from umemma_jax.experiment import Experiment
from umemma_jax.training import steps
from umemma_jax.training.gradients import Rule, rule_of
from umemma_jax.training.losses import ClassLoss, TargetLoss
from umemma_jax.training.rows import FusionRows
from umemma_jax.training.steps import StageSpec

STAGES = ("unimodal", "fusion")


def total_steps(experiment: Experiment, name: str) -> int:
    """Of a stage, if nothing ends it before."""
    config = experiment.config
    return config[name].epochs * steps_per_epoch(len(experiment.train_rows), config.data.batch_size)


def stage_spec(experiment: Experiment, name: str) -> tuple[StageSpec, int]:
    """The stage's static description and its number of steps."""
    config, model = experiment.config, experiment.model
    stage = config[name]
    total = total_steps(experiment, name)
    trained = steps.trained_groups(name, model)
    scales = dict.fromkeys(trained, 1.0)
    for m in experiment.modalities:
        if f"encoders_{m}" in scales:
            scales[f"encoders_{m}"] = config.inputs[m].learning_rate_scale[name]
    policy = layout = row_losses = None
    rule = Rule()
    if name == "fusion":
        row_losses, rule = _method(config)
        policy = missing.policy_from_config(config.missing, experiment.modalities)
        if config.missing.layout == "stratified":
            layout = stratified_layout(experiment, policy)
    spec = StageSpec(
        name=name,
        model=model,
        optimizer=steps.make_optimizer(stage, total, scales),
        trained=trained,
        seed=config.seed,
        loss=_loss(experiment, stage),
        row_losses=row_losses,
        rule=rule,
        policy=policy,
        layout=layout,
        incomplete_data=_incomplete(experiment),
        capacities=_capacities(experiment, name, policy),
        accumulate=stage.accumulate,
        ema=stage.ema,
        validated=len(experiment.validation[1]) > 0,
    )
    return spec, total


def _loss(experiment: Experiment, stage: ConfigDict) -> ClassLoss | TargetLoss:
    if experiment.task.targets:
        return TargetLoss(experiment.task.targets, huber=experiment.config.loss == "huber")
    return ClassLoss(stage.label_smoothing, experiment.focal_gamma, experiment.class_weights)


def _method(config: ConfigDict) -> tuple[Callable[[FusionRows], jax.Array] | None, Rule]:
    """The losses that make the config's method, with its hyper-parameters, None where switches do; and its rule."""
    if not config.method.name:
        return None, Rule()
    module, settings = methods.method(config.method.name), config.method.settings
    return functools.partial(methods.traced, module, **settings), rule_of(module, settings)


def stratified_layout(experiment: Experiment, policy: missing.Policy) -> missing.Layout:
    """The layout of the rows that are computed at once: of all devices under jit, of one under pmap."""
    config, shards = experiment.config, experiment.mesh.size
    rows = config.data.batch_size // config.fusion.accumulate
    if config.parallel == "pmap":
        return missing.stratified_layout(policy, rows // shards)
    return missing.stratified_layout(policy, rows, shards)


def _batch_layout(experiment: Experiment, policy: missing.Policy) -> missing.Layout:
    """The stratified layout of a global batch: on every device that of a microbatch, one after another."""
    config, shards = experiment.config, experiment.mesh.size
    return missing.stratified_layout(policy, config.data.batch_size, shards * config.fusion.accumulate)


def _capacities(experiment: Experiment, name: str, policy: missing.Policy | None) -> missing.Capacities:
    """Static numbers of rows for a stage's encoders, by what sample batches need; none where positions say it all."""
    config, shards = experiment.config, experiment.mesh.size
    layout = None
    if name == "fusion" and config.missing.layout == "stratified":
        layout = _batch_layout(experiment, policy)
    at_random = policy is not None and policy.drops and layout is None
    on_features = name == "fusion" and config.fusion.only  # where encoders do nothing
    if on_features or not (at_random or _incomplete(experiment)):
        return ()
    available = np.ones((1, len(experiment.modalities)), bool)
    if _incomplete(experiment):
        source = experiment.dataset.source(config.data.train_split)
        available = source.present(experiment.modalities)[experiment.train_rows]
    masks = missing.sample_masks(available, policy, layout, config.data.batch_size, config.seed)
    samples, modalities, parts = len(masks), len(experiment.modalities), config[name].accumulate
    masks = masks.reshape(samples, shards, parts, -1, modalities).swapaxes(1, 2)
    return missing.choose_capacities(masks.reshape(samples * parts, shards, -1, modalities), config.missing.capacities)


def training_batches(experiment: Experiment, name: str) -> Any:
    """The stage's endless iterator of training batches."""
    config = experiment.config
    arrange = needed = None
    if name == "fusion" and config.missing.layout == "stratified":
        policy = missing.policy_from_config(config.missing, experiment.modalities)
        layout = _batch_layout(experiment, policy)
        needed = layout.computed()
        if _incomplete(experiment):
            arrange = functools.partial(missing.arrange, layout=layout)
    return train_batches(
        experiment.dataset,
        config.data.train_split,
        experiment.modalities,
        config.data.batch_size,
        seed=2 * config.seed + STAGES.index(name),
        rows=experiment.train_rows,
        weights=experiment.row_weights,
        lengths=experiment.lengths,
        tokenizers=experiment.tokenizers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        arrange=arrange,
        needed=needed,
        window=config.data.window,
        threads=config.data.threads or None,
        cache_bytes=config.data.cache_megabytes << 20,
    )


def _incomplete(experiment: Experiment) -> bool:
    split = experiment.dataset.info.splits[experiment.config.data.train_split]
    return any(split.present[m] < split.examples for m in experiment.modalities)
