"""The stages of training and their loop: resumable at any step, bit for bit."""

import contextlib
import dataclasses
import functools
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from umemma_jax.command import INTERRUPTIONS
from umemma_jax.devices import distributed, sharding
from umemma_jax.devices.sharding import CompiledStep
from umemma_jax.errors import UserError
from umemma_jax.experiment import Experiment
from umemma_jax.model import start_from_heads
from umemma_jax.training import shared_stage, steps
from umemma_jax.training.checkpoint import Checkpoints
from umemma_jax.training.diagnosis import not_finite_example
from umemma_jax.training.ending import NO_BETTER, TIME_IS_UP, End, TimeLimit, read_end, read_ends, write_end
from umemma_jax.training.features import on_features
from umemma_jax.training.profile import Profile
from umemma_jax.training.progress import Progress
from umemma_jax.training.stages import STAGES, stage_spec, total_steps, training_batches
from umemma_jax.training.steps import StageSpec, TrainState
from umemma_jax.training.validation import Validation
from umemma_jax.training.workdir import RECORD, claim_workdir, hold_workdir, read_config, run_digest

PyTree = Any

_norm = jax.jit(optax.tree.norm)


class Preempted(Exception):
    """The process was asked to end, and its state is saved.

    Attributes:
      signal: what asked it to: SIGTERM, SIGHUP, or SIGINT (Ctrl-C).
    """

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.signal = number


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the stages of a run have made.

    Attributes:
      unimodal: variables with each modality at its best epoch, on the host; None where the config has no such stage.
      ensemble: the uni-modal models' ensemble, from which the fusion stage starts, likewise.
      fusion: variables of the model to evaluate, at the stage's best epoch; the ensemble where the config has no fusion
        stage.
      compilations: how often each stage's step was compiled by this process.
      compile_seconds: what that took.
      ends: of the stages that ended before their last step, by name.
    """

    unimodal: PyTree | None
    ensemble: PyTree | None
    fusion: PyTree
    compilations: dict[str, int]
    compile_seconds: dict[str, float]
    ends: dict[str, End] = dataclasses.field(default_factory=dict)


def train(experiment: Experiment, workdir: Path) -> Trained:
    """Runs the stages that the config asks for, each from where the workdir's checkpoints stand.

    Raises:
      UserError: among others, a loss that is not finite, or a workdir of another config or in use by another process.
      Preempted: after SIGTERM or Ctrl-C, once the state is saved.
    """
    with hold_workdir(workdir), _signals() as stop:
        claim_workdir(experiment.config, experiment.fingerprints, workdir)
        owner = shared_stage.owner_of(workdir)
        own = STAGES if owner is None else STAGES[1:]
        limit = TimeLimit(experiment.config.time_limit, {name: total_steps(experiment, name) for name in own})
        run = functools.partial(_run_stage, workdir=workdir, features=owner, stop=stop, limit=limit)
        trained = _run_stages(experiment, run, initial_variables, owner)
        if number := stop():
            raise Preempted("all stages are finished and saved", number)
        return dataclasses.replace(trained, ends=_ends(workdir, owner))


def load(experiment: Experiment, workdir: Path) -> Trained:
    """What `train` returned, from the workdir's checkpoints alone.

    Raises:
      UserError: the workdir is of another config, or a stage in it is not finished.
    """
    if not os.path.exists(workdir / RECORD):  # which Path.exists can fail to say, of a name that is too long
        raise UserError(f"{workdir}: nothing was trained here, run the same command with --mode=train first")
    claim_workdir(experiment.config, experiment.fingerprints, workdir)
    owner = shared_stage.owner_of(workdir)
    trained = _run_stages(experiment, functools.partial(_load_stage, workdir=workdir), _unfitted_variables, owner)
    return dataclasses.replace(trained, ends=_ends(workdir, owner))


def _ends(workdir: Path, owner: Path | None) -> dict[str, End]:
    """Of the stages that have ended early, the uni-modal one where it was trained."""
    return {**read_ends(owner or workdir, STAGES[:1]), **read_ends(workdir, STAGES[1:])}


def _run_stages(
    experiment: Experiment,
    run: Callable[..., tuple[TrainState, CompiledStep | None]],
    begin: Callable[[Experiment], PyTree],
    owner: Path | None,
) -> Trained:
    """Hands the variables from stage to stage, those of `begin` to the first.

    `run` gives a stage's final state, and its step if it took any; the uni-modal one's is that of `owner`, if there is
    one.
    """
    experiment.check_dataset()
    variables, taken = (begin if owner is None else _unfitted_variables)(experiment), {}
    unimodal = ensemble = None
    if experiment.config.unimodal.epochs:
        if owner is not None:
            run_unimodal = functools.partial(_load_stage, workdir=owner, config=read_config(owner))
        else:
            run_unimodal = run
        state, taken["unimodal"] = run_unimodal(experiment, "unimodal", variables)
        unimodal = sharding.fetch(steps.best_variables(state))
        del state  # so that the devices hold no more than the next stage's
        experiment.check_dataset()
        head, family = experiment.config.fusion.head, experiment.model.family
        params = start_from_heads(unimodal["params"], head, experiment.log_prior(), family)
        ensemble = {**unimodal, "params": jax.device_get(params)}
        variables = sharding.place(ensemble, experiment.mesh)
    if experiment.config.fusion.epochs:
        state, taken["fusion"] = run(experiment, "fusion", variables)
        variables = steps.best_variables(state)
        experiment.check_dataset()
    compilations = {name: step.compilations if step else 0 for name, step in taken.items()}
    compile_seconds = {name: step.compile_seconds if step else 0.0 for name, step in taken.items()}
    return Trained(unimodal, ensemble, variables, compilations, compile_seconds)


def initial_variables(experiment: Experiment) -> PyTree:
    """Fresh variables on the mesh: pre-trained encoders where the config names any, others fitted that can be."""
    variables = _started_variables(experiment)
    for x in experiment.inputs:
        variables = x.fit(variables, experiment.training_inputs(x))
    return sharding.place(variables, experiment.mesh)


def _unfitted_variables(experiment: Experiment) -> PyTree:
    """As `initial_variables`, without a look at the training inputs: enough to restore others in their place."""
    return sharding.place(_started_variables(experiment), experiment.mesh)


def _started_variables(experiment: Experiment) -> PyTree:
    rows = next(experiment.batches(experiment.config.data.test_split))
    variables = steps.init_variables(experiment.model, rows, experiment.config.seed, experiment.means)
    for x in experiment.inputs:
        variables = x.start(variables)
    return variables


def _initial_state(spec: StageSpec, variables: PyTree, mesh: Mesh) -> TrainState:
    """The state before the stage's first step, each device holding its part from the start; donates the variables."""

    def init(variables: PyTree) -> TrainState:
        return sharding.constrain(steps.init_state(spec, variables), mesh)

    return jax.jit(init, donate_argnums=0)(variables)


def _load_stage(
    experiment: Experiment, name: str, variables: PyTree, workdir: Path, config: ConfigDict | None = None
) -> tuple[TrainState, None]:
    """The final state of a finished stage of a workdir's run; `config` is that run's, where it is another one."""
    spec, total = stage_spec(experiment, name)
    end = read_end(workdir, name)
    last = end.step if end else total
    with Checkpoints(
        workdir, name, run=run_digest(config or experiment.config, experiment.fingerprints)
    ) as checkpoints:
        if checkpoints.latest() != last:
            raise UserError(
                f"{workdir}: stage {name} stands at step {checkpoints.latest() or 0} of {last}, "
                "run the same command with --mode=train to finish it"
            )
        return checkpoints.restore(last, _initial_state(spec, variables, experiment.mesh)), None


# The loop.


def _run_stage(
    experiment: Experiment,
    name: str,
    variables: PyTree,
    workdir: Path,
    stop: Callable[[], signal.Signals | None],
    limit: TimeLimit,
    features: Path | None = None,
) -> tuple[TrainState, CompiledStep]:
    """Trains one stage to its end, from its newest checkpoint or from `variables`.

    Features that are stored lie in its workdir, or in the workdir `features`.
    """
    config, run = experiment.config, run_digest(experiment.config, experiment.fingerprints)
    finite = functools.partial(_finite, experiment, name, workdir)
    judge = functools.partial(Validation, experiment, name)
    if name == "fusion" and config.fusion.only:
        experiment = on_features(experiment, variables, features or workdir, functools.partial(_end_before, name, stop))
    spec, total = stage_spec(experiment, name)
    end, epoch_steps, patience = read_end(workdir, name), total // config[name].epochs, config[name].patience
    last = end.step if end else total
    with Checkpoints(workdir, name, config.keep_checkpoints, run) as checkpoints:
        state = _initial_state(spec, variables, experiment.mesh)
        train_step = sharding.compile_step(steps.make_step(spec, experiment.means), experiment.mesh, config.parallel)
        batches = training_batches(experiment, name)
        first, compilations = checkpoints.latest() or 0, 0
        if first:
            state = checkpoints.restore(first, state, batches)
        if first == last:
            return state, train_step
        limit.begin(name, last - first)
        validation = judge()
        with (
            Progress(
                workdir, name, total, first, config.data.batch_size, distributed.is_first(), config.trackers
            ) as progress,
            Profile(_profile_folder(workdir, name), config.profile, total - first) as profile,
        ):
            if not first:
                state = validation.begin(state, progress)
            step = first
            while step < last:
                step += 1
                batch = sharding.put_batch(next(batches), experiment.mesh)
                with profile.step(step - first), jax.transfer_guard("disallow"):  # nothing here waits for the device
                    state, values = train_step(state, batch)
                profile.taken(step - first, values)
                if train_step.compilations > compilations:
                    compilations = train_step.compilations
                    progress.event("compiled", step, {"seconds": train_step.compile_seconds})
                progress.update(step)
                if limit.limited:
                    jax.block_until_ready(values)  # without which steps are only asked for, however long they take
                if step < last and limit.is_over():
                    last = step
                    write_end(workdir, name, End(step, total, TIME_IS_UP))
                if step % config.log_every == 0 or step == last:
                    progress.log(step, finite(values, step))
                if step % epoch_steps == 0 or step == last:
                    epoch = -(-step // epoch_steps)  # begun, where the stage ends within it
                    state = sharding.place(state, experiment.mesh)  # pmap leaves it on a mesh of its own
                    state = validation.keep_best(state, step, epoch, progress)
                    if step < last and 0 < patience <= steps.epochs_without_better(state, epoch):
                        last = step
                        write_end(workdir, name, End(step, total, NO_BETTER))
                stopping = stop()
                if step % config.checkpoint_every == 0 or step == last or stopping:
                    norm = _norm((state.params, state.batch_stats))
                    finite({**values, "norm of the parameters": norm}, step)
                    checkpoints.save(step, state, batches)
                if stopping:
                    checkpoints.wait()
                    raise Preempted(f"stage {name}: saved at step {step} of {total}", stopping)
            if last < total:
                progress.event("ended", last, {})
        checkpoints.wait()
    return sharding.place(state, experiment.mesh), train_step


def _profile_folder(workdir: Path, name: str) -> Path:
    return workdir / "profile" / name / (f"process{jax.process_index()}" if distributed.several() else "")


def _end_before(name: str, stop: Callable[[], signal.Signals | None]) -> None:
    """Raises Preempted, outside of the stage's steps, if the process was asked to end."""
    if number := stop():
        raise Preempted(f"stage {name}: stopped before its next step", number)


def _finite(
    experiment: Experiment, name: str, workdir: Path, values: dict[str, jax.Array], step: int
) -> dict[str, float]:
    """Metrics as floats; raises UserError where one is not finite, before anything of it is saved."""
    numbers = {key: float(value) for key, value in jax.device_get(values).items()}
    wrong = next((f"{key} is {number}" for key, number in numbers.items() if not math.isfinite(number)), None)
    if wrong is None:
        return numbers
    example = not_finite_example(experiment, initial_variables(experiment))
    if example is not None:
        remedy = f"it comes from {example}: correct or leave out the example, prepare the dataset again"
    else:
        remedy = f"lower config.{name}.learning_rate or config.{name}.clip"
    raise UserError(
        f"stage {name}, step {step}: {wrong}. The last good checkpoint, if any, is kept in "
        f"{workdir}/checkpoints/{name}; {remedy} and start in a new workdir"
    )


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Takes note of INTERRUPTIONS, and says which has come; a second Ctrl-C does not wait for the step to end.

    A KeyboardInterrupt can go unheeded: raised inside a callback of the garbage collector, it is only reported. Of
    several processes, JAX takes note of SIGTERM, so that all end after the same step; Ctrl-C ends one at once.
    """
    if distributed.several():
        yield lambda: signal.SIGTERM if distributed.asked_to_end() else None
        return
    received = []

    def note(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # What is ignored stays so: SIGINT in a shell's background jobs, SIGHUP under nohup.
    noted = [number for number in INTERRUPTIONS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in noted}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
