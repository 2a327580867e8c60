"""What the training-step benchmarks of late fusion share: ours against the same model in PyTorch, taking turns.

PyTorch's weights are converted to ours; on a batch of which both must see the same, both must then have the same
float32 loss, in a first step and after its update. Then all steps take turns, on one batch that lies on the device.
float32 is float32 here, not TF32. FLOPs are XLA's count for our float32 step; PyTorch's, which computes the same, is
credited with those of our first layout.
"""

import argparse
import dataclasses
import functools
import os
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import command, missing, preprocess
from umemma_jax import config as config_lib
from umemma_jax.data.kinds import Modality
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.model import LateFusion, Tower, encoder_module
from umemma_jax.training import steps
from umemma_jax.weights.convert import convert
from umemma_jax.weights.pretrained import Converted

PyTree = Any
Step = Callable[[steps.TrainState, PyTree], tuple[steps.TrainState, steps.Metrics]]

SAME = 2e-4  # larger relative differences of two float32 losses are none of rounding, batch norm and Adam included
PRECISIONS = ("fp32", "bf16")  # the first is the one in which losses are compared
BATCHES = {"cpu": 4, "cuda": 64}  # by PyTorch's device
PEAK_SIZE = 16384  # side of the square matrices whose product shows a GPU's peak
SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
      encoders: both, by name, for the title.
      families: of our encoders, by modality; the order is that of presence masks.
      modalities: what a dataset would state of them.
      preprocess: of them, as in a config.
      classes: K.
      layouts: of our steps: `random` or `stratified`, under missing augmentation by thirds, or `complete`, without it.
        PyTorch's step is as our first.
      pytorch_encoders: (`late_fusion_torch`, quick) -> PyTorch's encoders by modality.
      batch: (batch size, quick) -> training batch of NumPy arrays.
    """

    encoders: str
    families: Mapping[str, str]
    modalities: Mapping[str, Modality]
    preprocess: Mapping[str, Mapping[str, Any]]
    classes: int
    layouts: tuple[str, ...]
    pytorch_encoders: Callable[[types.ModuleType, bool], Mapping[str, Any]]
    batch: Callable[[int, bool], PyTree]

    @property
    def checked(self) -> "Variant":
        """Ours that must agree with PyTorch's."""
        return Variant("ours", "fp32", self.layouts[0])

    def policy(self, layout: str) -> missing.Policy:
        """Which modalities a layout's step keeps."""
        return missing.policy_from_config({"augment": layout != "complete", "keep": {}}, tuple(self.families))


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
      framework: `PyTorch` or `ours`.
      precision: `fp32` or `bf16`, of the encoders' matrix products.
      detail: the layout of our step; `compiled` for PyTorch's.
      options: of XLA, each `OPTION=VALUE`.
    """

    framework: str
    precision: str
    detail: str = ""
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As the table has it."""
        return " ".join(filter(None, (self.framework, self.precision, self.detail, "--xla" if self.options else "")))


def compare(task: Task, arguments: argparse.Namespace) -> None:
    """Checks both frameworks against each other, times them, and prints the table.

    Args:
      task: what both train.
      arguments: of `parse`.

    Raises:
      UserError: the batch is empty, PyTorch is not installed for JAX's device, or XLA refuses an option.
      RuntimeError: losses differ.
    """
    if arguments.batch is not None and arguments.batch < 1:
        raise UserError(f"--batch={arguments.batch}: give it 1 or more")
    # Read when JAX first looks for devices: it would take three quarters of a GPU's memory, and leave PyTorch the rest.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    pytorch = pytorch_side()
    batch_size = arguments.batch or BATCHES[pytorch.device()]
    stage, batch = fusion_stage(), task.batch(batch_size, arguments.quick)
    model = pytorch.late_fusion(lambda: task.pytorch_encoders(pytorch, arguments.quick), task.classes)
    ours = OurTraining(task, model, stage, batch, arguments.attention)
    theirs = pytorch.Training(model, stage, np.array(task.policy(task.layouts[0]).patterns))

    precisions = PRECISIONS if arguments.precision == "both" else PRECISIONS[:1]
    flops = {layout: ours.flops(layout) for layout in task.layouts}
    compiled = {}
    for variant in our_variants(task, precisions, arguments.xla):
        print(f"compiling {variant.name}", file=sys.stderr)
        compiled[variant] = ours.compiled(variant)
    print("comparing losses, then timing", file=sys.stderr)
    difference = check_losses(ours, compiled[task.checked], theirs, batch)
    our_batch, their_batch = sharding.put_batch(batch, ours.mesh), theirs.put_batch(batch)
    runs = {variant: functools.partial(ours.step, step, our_batch) for variant, step in compiled.items()}
    for variant in their_variants(pytorch, precisions):
        runs[variant] = functools.partial(theirs.step, their_batch, variant.precision, variant.detail == "compiled")
    if pytorch.device() == "cuda":
        runs["peak"] = matrix_product()
    seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)

    medians = {run: float(np.median(values)) for run, values in seconds.items()}
    peak = 2 * PEAK_SIZE**3 / medians.pop("peak") if "peak" in medians else None
    title = (
        f"Training step of {task.encoders} in late fusion, batch {batch_size}: medians of "
        f"{len(seconds[task.checked])} steps each; fp32 losses of both frameworks agree to {difference:.0e}"
    )
    if peak:
        title += f"; MFU of {peak / 1e12:,.0f} TFLOP/s, a bf16 product of matrices of {PEAK_SIZE} rows"
    header = ("", "examples/s", "speed / PyTorch", "GFLOP/example", *(["MFU"] if peak else []))
    timing.print_table(title, header, rows(medians, flops, peak, batch_size))
    if arguments.xla:
        print(f"--xla: {' '.join(arguments.xla)}")


def parse(description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a benchmark with this docstring."""
    summary, _, rest = description.partition("\n\n")
    parser = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, help="examples; default: 4, on a GPU 64")
    parser.add_argument("--precision", default="both", choices=("both", "fp32"), help="of the encoders' products")
    parser.add_argument("--attention", default="xla", choices=("xla", "cudnn"), help="of ours in bf16; cudnn: on a GPU")
    parser.add_argument("--xla", action="append", default=[], metavar="OPTION=VALUE", help="for a row of ours in fp32")
    parser.add_argument("--quick", action="store_true", help="small models, few steps; the figures mean nothing")
    return parser.parse_args(argv)


def pytorch_side() -> types.ModuleType:
    """The module with PyTorch's half, which needs PyTorch, on the same kind of device as JAX."""
    try:
        from benchmarks import late_fusion_torch
    except ImportError:
        raise UserError("PyTorch is the reference here: pip install -e '.[torch]'") from None
    ours, theirs = jax.default_backend(), late_fusion_torch.device()
    if {"gpu": "cuda"}.get(ours, ours) != theirs:
        raise UserError(f"JAX computes on {ours}, PyTorch on {theirs}: install both for the same device")
    return late_fusion_torch


def our_variants(task: Task, precisions: Sequence[str], options: Sequence[str]) -> list[Variant]:
    """Of all layouts in these precisions, and with options of XLA."""
    variants = [Variant("ours", precision, layout) for precision in precisions for layout in task.layouts]
    return variants + ([dataclasses.replace(task.checked, options=tuple(options))] if options else [])


def their_variants(pytorch: types.ModuleType, precisions: Sequence[str]) -> list[Variant]:
    """PyTorch's in these precisions, on a GPU also compiled."""
    details = ("", "compiled") if pytorch.device() == "cuda" else ("",)
    return [Variant("PyTorch", precision, detail) for precision in precisions for detail in details]


def rows(
    medians: Mapping[Variant, float], flops: Mapping[str, float], peak: float | None, batch_size: int
) -> list[tuple[str, ...]]:
    """The table's rows, by precision, PyTorch's first.

    Args:
      medians: seconds of a step.
      flops: of a step, by layout; PyTorch's is as the first.
      peak: FLOP/s of which the utilisation is a share; None for no such column.
      batch_size: examples of a step.
    """
    found = []
    for variant in sorted(medians, key=lambda v: (v.precision != "fp32", v.framework != "PyTorch")):
        seconds, reference = medians[variant], medians[Variant("PyTorch", variant.precision)]
        count = flops.get(variant.detail, next(iter(flops.values())))
        row = (f"{batch_size / seconds:,.2f}", f"{reference / seconds:.2f}", f"{count / batch_size / 1e9:,.3g}")
        found.append((variant.name, *row, *([f"{count / seconds / peak:.1%}"] if peak else [])))
    return found


def check_losses(ours: "OurTraining", step: Step, theirs: Any, batch: PyTree) -> float:
    """Trains both by two steps, whose losses must agree.

    Under missing augmentation, on rows of one modality each, which no mask changes: both draw their own masks.

    Returns:
      The largest difference of losses.

    Raises:
      RuntimeError: they do not.
    """
    if ours.task.policy(ours.task.layouts[0]).drops:
        rows, columns = batch["present"].shape
        batch = {**batch, "present": np.eye(columns, dtype=bool)[np.arange(rows) % columns]}
    our_batch, their_batch = sharding.put_batch(batch, ours.mesh), theirs.put_batch(batch)
    losses = [(float(ours.step(step, our_batch)["loss"]), theirs.step(their_batch, "fp32")) for _ in range(2)]
    difference = max(abs(ours - theirs) for ours, theirs in losses)
    if not difference < SAME * losses[0][1]:
        raise RuntimeError(f"losses of two steps, ours and PyTorch's, are not the same: {losses}")
    return difference


def matrix_product() -> Callable[[], jax.Array]:
    """A call multiplies two bfloat16 matrices of PEAK_SIZE rows and columns."""
    x = jax.random.normal(jax.random.key(0), (PEAK_SIZE, PEAK_SIZE), jnp.bfloat16)  # zeros would be faster: less power
    product = jax.jit(jnp.matmul)
    return lambda: product(x, x)


def fusion_stage() -> ConfigDict:
    """The stage as for fine-tuning, at a constant learning rate."""
    stage = config_lib.default_config().fusion
    stage.update({"learning_rate": 5e-5, "weight_decay": 0.01, "warmup": 0.0})
    return stage


# --- ours -------------------------------------------------------------------------------------------------------------


class OurTraining:
    """The fusion stage, whose state every variant of the step takes and hands on: parameters are always float32.

    Attributes:
      task: what is trained.
      mesh: one device, as PyTorch uses.
      state: steps donate it.
    """

    def __init__(self, task: Task, theirs: Any, stage: ConfigDict, batch: PyTree, attention: str) -> None:
        """Starts from the weights of PyTorch's model; `attention` is the implementation in bfloat16."""
        self.mesh = sharding.make_mesh(devices=jax.devices()[:1])
        self.task, self.stage, self.batch, self.attention = task, stage, batch, attention
        self._lowerings = {}
        with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
            encoders = {name: converted(theirs, name, task.families[name], Path(folder)) for name in task.families}
            self.fields = {name: encoder.card.fields for name, encoder in encoders.items()}
            spec = self._spec(task.checked)
            variables = started(steps.init_variables(spec.model, batch, spec.seed, means={}), encoders, theirs)
        self.state = jax.device_put(steps.init_state(spec, variables), sharding.replicated(self.mesh))

    def compiled(self, variant: Variant) -> jax.stages.Compiled:
        """The step of a variant, (state, batch) -> (state, metrics). Raises UserError for an option XLA refuses."""
        on_gpu = jax.default_backend() == "gpu"
        with jax.default_matmul_precision("float32" if on_gpu and variant.precision == "fp32" else None):
            lowered = self._lowered(variant, self.mesh)
        if not variant.options:
            return lowered.compile()
        try:
            return lowered.compile(dict(option.split("=", 1) for option in variant.options))
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--xla={' '.join(variant.options)}: {reason}: give it an OPTION=VALUE of XLA") from error

    def flops(self, layout: str) -> float:
        """FLOPs of a step, before XLA optimises it, as counted on the host: library calls on a GPU count as none."""
        host = sharding.make_mesh(devices=[workload.host()])
        return self._lowered(Variant("ours", "fp32", layout), host).cost_analysis()["flops"]

    def _lowered(self, variant: Variant, mesh: Mesh) -> jax.stages.Lowered:
        """Lowered once: on the host, the step that is counted is the one that is timed."""
        if (variant, mesh) not in self._lowerings:
            self._lowerings[variant, mesh] = self._lower(variant, mesh)
        return self._lowerings[variant, mesh]

    def _lower(self, variant: Variant, mesh: Mesh) -> jax.stages.Lowered:
        step = sharding.compile_step(steps.make_step(self._spec(variant), means={}), mesh, "jit")
        return step.lower(*jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (self.state, self.batch)))

    def step(self, compiled: Step, batch: PyTree) -> steps.Metrics:
        """One step, by any of its variants."""
        self.state, metrics = compiled(self.state, batch)
        return metrics

    def _spec(self, variant: Variant) -> steps.StageSpec:
        towers = tuple(self._tower(name, variant.precision) for name in self.task.families)
        model, policy = LateFusion(towers, self.task.classes), self.task.policy(variant.detail)
        return workload.fusion_spec(model, self.stage, policy, len(self.batch["label"]), variant.detail)

    def _tower(self, name: str, precision: str) -> Tower:
        model, modality = encoder_module(self.task.families[name]).Model, self.task.modalities[name]
        in_bf16 = {"dtype": "bfloat16"} | ({"attention": self.attention} if hasattr(model, "attention") else {})
        fields = {**self.fields[name], **(in_bf16 if precision == "bf16" else {})}
        return Tower(
            name=name,
            preprocess=preprocess.build(modality.kind, modality, self.task.preprocess.get(name, {}), name),
            encoder=functools.partial(model, **fields),
        )


def converted(theirs: Any, name: str, family: str, folder: Path) -> Converted:
    """An encoder of PyTorch's model, saved and converted as a user would."""
    theirs.encoders[name].model.save_pretrained(folder / f"{name}_original")
    convert(family, folder / f"{name}_original", folder / name)
    return Converted(folder / name)


def started(variables: PyTree, encoders: Mapping[str, Converted], theirs: Any) -> PyTree:
    """Our variables with the values of PyTorch's model."""
    found = {collection: dict(tree) for collection, tree in variables.items()}
    fusion = {}
    for name, encoder in encoders.items():
        group, head = f"encoders_{name}", theirs.heads[name]
        fitted = encoder.fit({collection: tree[group] for collection, tree in found.items() if group in tree})
        for collection, tree in fitted.items():
            found[collection][group] = tree
        found["params"][f"tokens_{name}"] = {"feature": array(theirs.tokens[name])}
        fusion |= {f"kernel_{name}": array(head.weight).T, f"bias_{name}": array(head.bias)}
    found["params"]["fusion"] = {**found["params"]["fusion"], **fusion}  # and no prior: PyTorch's head has none
    return jax.tree.map(jnp.array, found)


def array(tensor: Any) -> np.ndarray:
    """A PyTorch parameter as NumPy has it."""
    return tensor.detach().numpy()
