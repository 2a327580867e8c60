"""What a run compiles: the steps of both stages, the encoders of evaluation, and prediction."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import roofline
from umemma_jax import experiment as experiment_lib
from umemma_jax import predict
from umemma_jax.devices import sharding
from umemma_jax.evaluation import evaluate
from umemma_jax.model import LateFusion
from umemma_jax.training import stages, steps

PyTree = Any
STAGES = stages.STAGES
INFERENCE = ("evaluation", "prediction")
PROGRAMS = (*STAGES, *INFERENCE)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and its data, by shapes.

    Attributes:
      model: the Linen module.
      mesh: of the devices, which need not be there.
      means: as in `Experiment`.
      stages: the static description of each.
      training: a stage's batch, `jax.ShapeDtypeStruct`s without sharding.
      evaluation: a batch of evaluation, likewise.
    """

    model: LateFusion
    mesh: Mesh
    means: PyTree
    stages: Mapping[str, steps.StageSpec]
    training: Mapping[str, PyTree]
    evaluation: PyTree

    def examples(self, program: str) -> int:
        """Rows of the batch that a program takes."""
        return len(self._batch(program)["present"])

    def lower(self, program: str) -> jax.stages.Lowered:
        """One of PROGRAMS, as a run lowers it."""
        batch = self._batch(program)
        if program in STAGES:
            step = sharding.compile_step(steps.make_step(self.stages[program], self.means), self.mesh, "jit")
            return step.lower(self.state(program), batch)
        variables = self._placed(self._variables())
        if program == "evaluation":
            return evaluate.Evaluator(self.model, self.mesh, self.means).lower(variables, batch)
        return predict.program(self.model, self.mesh, self.means).lower(variables, batch)

    def state(self, stage: str) -> steps.TrainState:
        """Of a stage, by shapes."""
        init = functools.partial(steps.init_state, self.stages[stage])
        return self._placed(jax.eval_shape(init, self._variables()))

    def _batch(self, program: str) -> PyTree:
        batch, rows = self.training.get(program, self.evaluation), sharding.by_rows(self.mesh)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)

    def _variables(self) -> PyTree:
        init = functools.partial(self.model.init, train=False, means=self.means)
        found = jax.eval_shape(init, jax.random.key(0), self.evaluation["inputs"], self.evaluation["present"])
        return {"params": dict(found["params"]), "batch_stats": dict(found.get("batch_stats", {}))}

    def _placed(self, tree: PyTree) -> PyTree:
        def place(x: jax.ShapeDtypeStruct, where: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

        return jax.tree.map(place, tree, sharding.like_parameters(tree, self.mesh))


def flops(plain: Subject, program: str) -> float:
    """The model's FLOPs, for all examples: XLA's count before it optimises, of what `plain` gives."""
    return plain.lower(program).cost_analysis()["flops"]


def of_pair(pair: roofline.Pair, size: str, switches: roofline.Switches, examples: int, mesh: Mesh) -> Subject:
    """A pair of encoders; evaluation and prediction take as many examples as training."""
    batch = shapes(pair.batch(1, size == "tiny"), examples)
    stages = {
        name: roofline.stage_spec(pair, size, switches, examples, stage=name, shards=mesh.size) for name in STAGES
    }
    evaluation = {**batch, "index": jax.ShapeDtypeStruct((examples,), "int32")}
    return Subject(stages["fusion"].model, mesh, {}, stages, dict.fromkeys(STAGES, batch), evaluation)


def plain_pair(pair: roofline.Pair, size: str, layout: str, examples: int) -> Subject:
    """What `flops` counts of a pair: as `roofline.model_flops` has it."""
    layout = "stratified" if layout == "compacted" else layout
    mesh = sharding.make_mesh(devices=jax.devices("cpu")[:1])
    return of_pair(pair, size, roofline.Switches("float32", layout=layout), examples, mesh)


def of_recipe(config: ConfigDict, mesh: Mesh) -> Subject:
    """What a config makes of its dataset on a mesh of these devices."""
    config.parallel = "jit"  # `pmap` takes devices that are there
    experiment = dataclasses.replace(experiment_lib.build(config), mesh=mesh)
    for field in ("data", "evaluation"):
        sharding.check_batch_size(config[field].batch_size, mesh, f"{field}.batch_size")
    names = [name for name in STAGES if config[name].epochs]
    return Subject(
        experiment.model,
        mesh,
        experiment.means,
        {name: stages.stage_spec(experiment, name)[0] for name in names},
        {name: shapes(next(iter(stages.training_batches(experiment, name)))) for name in names},
        shapes(next(experiment.batches(config.data.test_split))),
    )


def plain_recipe(config: ConfigDict) -> Subject:
    """What `flops` counts of a config."""
    config = config.copy_and_resolve_references()
    for name in config.modalities:
        encoder = config.inputs[name].encoder
        encoder.update({key: value for key, value in PLAIN.items() if key in encoder})
    config.missing.capacities = 0
    return of_recipe(config, sharding.make_mesh(devices=jax.devices("cpu")[:1]))


PLAIN = {"dtype": "float32", "scan": False, "remat": False, "attention": "xla"}


def shapes(batch: PyTree, examples: int | None = None) -> PyTree:
    """Of a batch of NumPy arrays, for its own number of examples or for another."""

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((examples or len(x), *x.shape[1:]), x.dtype)

    return jax.tree.map(shape, batch)
