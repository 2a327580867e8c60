"""The stages of training and their loop: resumable at any step, bit for bit."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import config as config_lib
from umemma_jax import missing, sharding, steps
from umemma_jax.checkpoint import Checkpoints
from umemma_jax.data.pipeline import steps_per_epoch, train_batches
from umemma_jax.errors import UserError
from umemma_jax.evaluate import Evaluator
from umemma_jax.experiment import Experiment
from umemma_jax.model import start_from_heads
from umemma_jax.progress import Progress
from umemma_jax.steps import StageSpec, TrainState

PyTree = Any
STAGES = ("unimodal", "fusion")


class Preempted(Exception):
    """The process was asked to end (SIGTERM) and its state is saved."""


def train(experiment: Experiment, workdir: Path) -> dict[str, PyTree]:
    """Runs the stages that the config asks for, each from where the workdir's checkpoints stand.

    Returns:
      Variables by stage: `unimodal` (each modality at its best epoch), where the config has that stage, and `fusion`,
      the model to evaluate. Without a fusion stage that is the ensemble of the uni-modal models.

    Raises:
      UserError: among others, a loss that is not finite, or a workdir of another config.
      Preempted: after SIGTERM, once the state is saved.
    """
    claim_workdir(experiment.config, experiment.dataset.fingerprint, workdir)
    stop = _stop_on_sigterm()
    variables, finished = initial_variables(experiment), {}
    for name in STAGES:
        if not experiment.config[name].epochs:
            continue
        if finished:
            variables = _start_fusion(variables, experiment)
        state = _run_stage(experiment, name, variables, workdir, stop)
        variables = finished[name] = _finished_variables(name, state)
    finished.setdefault("fusion", _start_fusion(variables, experiment))
    return finished


def load(experiment: Experiment, workdir: Path) -> dict[str, PyTree]:
    """What `train` returned, from the workdir's checkpoints alone.

    Raises:
      UserError: the workdir is of another config, or a stage in it is not finished.
    """
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir}: nothing was trained here, run the same command with --mode=train first")
    claim_workdir(experiment.config, experiment.dataset.fingerprint, workdir)
    variables, finished = initial_variables(experiment), {}
    for name in STAGES:
        if not experiment.config[name].epochs:
            continue
        spec, total = stage_spec(experiment, name)
        state = _place(steps.init_state(spec, variables), experiment)
        with Checkpoints(workdir, name) as checkpoints:
            if checkpoints.latest() != total:
                raise UserError(
                    f"{workdir}: stage {name} stands at step {checkpoints.latest() or 0} of {total}, "
                    "run the same command with --mode=train to finish it"
                )
            state = checkpoints.restore(total, state)
        variables = finished[name] = _finished_variables(name, state)
    finished.setdefault("fusion", _start_fusion(variables, experiment))
    return finished


def initial_variables(experiment: Experiment) -> PyTree:
    """Fresh variables, replicated over the mesh."""
    rows = next(experiment.batches(experiment.config.data.test_split))
    variables = steps.init_variables(experiment.model, rows, experiment.config.seed, experiment.means)
    return _place(variables, experiment)


def stage_spec(experiment: Experiment, name: str) -> tuple[StageSpec, int]:
    """The stage's static description and its number of steps."""
    config, model = experiment.config, experiment.model
    stage = config[name]
    total = stage.epochs * steps_per_epoch(len(experiment.train_rows), config.data.batch_size)
    trained = steps.trained_groups(name, model)
    scales = dict.fromkeys(trained, 1.0)
    if name == "fusion":
        for m in experiment.modalities:
            if f"encoders_{m}" in scales:
                scales[f"encoders_{m}"] = config.inputs[m].learning_rate_scale
    policy = layout = None
    if name == "fusion":
        policy = missing.policy_from_config(config.missing, experiment.modalities)
        if config.missing.layout == "stratified":
            layout = stratified_layout(experiment, policy)
    spec = StageSpec(
        name=name,
        model=model,
        optimizer=steps.make_optimizer(stage, total, scales),
        trained=trained,
        seed=config.seed,
        label_smoothing=stage.label_smoothing,
        policy=policy,
        layout=layout,
        incomplete_data=_incomplete(experiment),
    )
    return spec, total


def stratified_layout(experiment: Experiment, policy: missing.Policy) -> missing.Layout:
    """The layout of the rows that one step sees: the global batch under jit, one device's rows under pmap."""
    batch_size, shards = experiment.config.data.batch_size, experiment.mesh.size
    if experiment.config.parallel == "pmap":
        return missing.stratified_layout(policy, batch_size // shards)
    return missing.stratified_layout(policy, batch_size, shards)


def training_batches(experiment: Experiment, name: str) -> Any:
    """The stage's endless iterator of training batches."""
    config = experiment.config
    arrange = None
    if name == "fusion" and config.missing.layout == "stratified" and _incomplete(experiment):
        policy = missing.policy_from_config(config.missing, experiment.modalities)
        local = config.data.batch_size // jax.process_count()
        layout = missing.stratified_layout(policy, local, jax.local_device_count())

        def arrange(present: np.ndarray) -> np.ndarray:
            return missing.arrange(present, layout)

    return train_batches(
        experiment.dataset,
        config.data.train_split,
        experiment.modalities,
        config.data.batch_size,
        seed=2 * config.seed + STAGES.index(name),
        rows=experiment.train_rows,
        lengths=experiment.lengths,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        arrange=arrange,
        threads=config.data.threads,
    )


def _incomplete(experiment: Experiment) -> bool:
    split = experiment.dataset.info.splits[experiment.config.data.train_split]
    return any(split.present[m] < split.examples for m in experiment.modalities)


def _place(tree: PyTree, experiment: Experiment) -> PyTree:
    return jax.device_put(tree, sharding.replicated(experiment.mesh))


def _start_fusion(variables: PyTree, experiment: Experiment) -> PyTree:
    """Stage-1 variables with the fusion head started from their heads; copied, since training donates its state."""
    params = start_from_heads(variables["params"], experiment.config.fusion.head)
    return jax.tree.map(jax.numpy.copy, {**variables, "params": params})


def _finished_variables(name: str, state: TrainState) -> PyTree:
    if name == "unimodal":
        return steps.best_variables(state)
    return {"params": state.params, "batch_stats": state.batch_stats}


# The loop.


def _run_stage(
    experiment: Experiment, name: str, variables: PyTree, workdir: Path, stop: Callable[[], bool]
) -> TrainState:
    """Trains one stage to its end, from its newest checkpoint or from `variables`."""
    config = experiment.config
    spec, total = stage_spec(experiment, name)
    epoch_steps = total // config[name].epochs
    state = _place(steps.init_state(spec, variables), experiment)
    train_step, _ = sharding.compile_step(steps.make_step(spec, experiment.means), experiment.mesh, config.parallel)
    validate = _validation(experiment) if name == "unimodal" else None
    batches = training_batches(experiment, name)
    with Checkpoints(workdir, name, config.keep_checkpoints) as checkpoints:
        first = checkpoints.latest() or 0
        if first:
            state = checkpoints.restore(first, state, batches)
        if first == total:
            return state
        with Progress(workdir, name, total, first, config.data.batch_size) as progress:
            for step in range(first + 1, total + 1):
                batch = sharding.put_batch(next(batches), experiment.mesh)
                state, values = train_step(state, batch)
                progress.update(step)
                if step % config.log_every == 0 or step == total:
                    progress.log(step, _finite(values, name, step, workdir))
                if validate and step % epoch_steps == 0:
                    state = validate(state, step, step // epoch_steps, progress)
                stopping = stop()
                if step % config.checkpoint_every == 0 or step == total or stopping:
                    _finite(values, name, step, workdir)
                    _save(checkpoints, step, state, batches)
                if stopping:
                    checkpoints.wait()
                    raise Preempted(f"stage {name}: saved at step {step} of {total}")
        checkpoints.wait()
    return state


def _save(checkpoints: Checkpoints, step: int, state: TrainState, batches: Any) -> None:
    try:
        checkpoints.save(step, state, batches)
    except OSError as error:
        raise UserError(f"checkpoint of step {step} cannot be written: {error}") from error


def _finite(values: dict[str, jax.Array], name: str, step: int, workdir: Path) -> dict[str, float]:
    """Metrics as floats; raises UserError where one is not finite, before anything of it is saved."""
    numbers = {key: float(value) for key, value in jax.device_get(values).items()}
    for key, number in numbers.items():
        if not math.isfinite(number):
            raise UserError(
                f"stage {name}, step {step}: {key} is {number}. The last good checkpoint is kept in "
                f"{workdir}/checkpoints/{name}; lower config.{name}.learning_rate or config.{name}.clip and "
                "start in a new workdir"
            )
    return numbers


def _validation(experiment: Experiment) -> Callable[[TrainState, int, int, Progress], TrainState]:
    """A function that scores the epoch per modality and keeps the best ones; without validation rows, the last."""
    split, rows = experiment.validation
    evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
    same = sharding.replicated(experiment.mesh)
    keep_best = jax.jit(steps.keep_best, donate_argnums=0, out_shardings=same)

    def validate(state: TrainState, step: int, epoch: int, progress: Progress) -> TrainState:
        if len(rows):
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            scores = evaluator.unimodal(evaluator.encode(variables, experiment.batches(split, rows)))
            accuracy = {m: score["accuracy"] for m, score in scores.items()}
            progress.event("validation", step, {f"accuracy/{m}": value for m, value in accuracy.items()})
        else:
            accuracy = dict.fromkeys(experiment.modalities, 0.0)
        return keep_best(state, accuracy, epoch)

    return validate


def _stop_on_sigterm() -> Callable[[], bool]:
    """Says whether SIGTERM has come since this call."""
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    return lambda: bool(received)


# The workdir.


def claim_workdir(config: ConfigDict, dataset_fingerprint: str, workdir: Path) -> None:
    """Writes `config.json` on the first run; on a later one makes sure that the config is the same.

    Raises:
      UserError: the workdir cannot be written, or belongs to a run with another config.
    """
    record = json.loads(json.dumps({"config": config.to_dict(), "dataset": dataset_fingerprint}))
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
            os.replace(temporary, path)
            return
        known = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it or use another --workdir") from error
    changed = config_lib.differences(known["config"], record["config"])
    if known["dataset"] != record["dataset"]:
        changed.append("dataset.json")
    if changed:
        raise UserError(
            f"--workdir={workdir} holds a run of another config ({'; '.join(changed)}): "
            "use another --workdir, or the same config"
        )
