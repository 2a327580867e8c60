"""Training step of ViT-B/16 and BERT-base in late fusion: ours against the same model in PyTorch.

python -m benchmarks.vision_language_step [--batch=4] [--xla=OPTION=VALUE] [--attention=cudnn] [--quick]

Images of 224x224 pixels beside 40 tokens, missing augmentation by thirds, a linear head, cross-entropy, gradients
clipped per encoder, AdamW. PyTorch runs `transformers`' ViTModel and BertModel, bfloat16 by autocast, and on a GPU
`torch.compile`d too. Its weights are converted to ours; on rows of one modality each, where both draw the same masks,
both must then have the same float32 loss, in a first step and after its update. Then all steps take turns, on one batch
that lies on the device. float32 is float32 here, not TF32. FLOPs are XLA's count for our float32 step; PyTorch's, which
computes the same, is credited with those of the random layout.

Needs `pip install -e '.[torch]'`. One row more, for options of XLA:
--xla=xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE
"""

import argparse
import dataclasses
import functools
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
from umemma_jax import config as config_lib
from umemma_jax import missing, preprocess, sharding, steps
from umemma_jax.convert import convert
from umemma_jax.data.kinds import Modality
from umemma_jax.errors import UserError
from umemma_jax.model import LateFusion, Tower, encoder_module
from umemma_jax.pretrained import Converted

PyTree = Any
Step = Callable[[steps.TrainState, PyTree], tuple[steps.TrainState, steps.Metrics]]

FAMILIES = {"image": "vit", "text": "bert"}
MODALITIES = {
    "image": Modality(kind="image", encoding="jpeg", mean=(127.5,) * 3, std=(127.5,) * 3),
    "text": Modality(kind="text", encoding="utf-8"),
}
LAYOUTS = ("random", "stratified")
CLASSES, SIDE, TOKENS = 101, 224, 40  # as of UPMC Food101
SMALL_SIDE = 32
SMALL = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
SAME = 1e-4  # larger differences of two float32 losses are none of rounding
PEAK_SIZE = 16384  # side of the square matrices whose product shows a GPU's peak
SECONDS = 60.0


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


CHECKED = Variant("ours", "fp32", "random")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    if arguments.batch < 1:
        raise UserError(f"--batch={arguments.batch}: give it 1 or more")
    pytorch = pytorch_side()
    stage, batch = fusion_stage(), example_batch(arguments.batch, arguments.quick)
    policy = missing.policy_from_config({"augment": True, "keep": {}}, tuple(FAMILIES))
    model = pytorch.LateFusion(*their_fields(arguments.quick), CLASSES)
    ours = OurTraining(model, stage, policy, batch, arguments.attention)
    theirs = pytorch.Training(model, stage, np.array(policy.patterns), MODALITIES["image"])

    compiled = {variant: ours.compiled(variant) for variant in our_variants(arguments.xla)}
    difference = check_losses(ours, compiled[CHECKED], theirs, batch)
    our_batch, their_batch = sharding.put_batch(batch, ours.mesh), theirs.put_batch(batch)
    runs = {variant: functools.partial(ours.step, step, our_batch) for variant, step in compiled.items()}
    for variant in their_variants(pytorch):
        runs[variant] = functools.partial(theirs.step, their_batch, variant.precision, variant.detail == "compiled")
    if pytorch.device() == "cuda":
        runs["peak"] = matrix_product()
    seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)

    medians = {run: float(np.median(values)) for run, values in seconds.items()}
    flops = {layout: ours.flops(layout) for layout in LAYOUTS}
    peak = 2 * PEAK_SIZE**3 / medians.pop("peak") if "peak" in medians else None
    title = (
        f"Training step of ViT and BERT in late fusion, batch {arguments.batch}: medians of "
        f"{len(seconds[CHECKED])} steps each; fp32 losses of both frameworks agree to {difference:.0e}"
    )
    if peak:
        title += f"; MFU of {peak / 1e12:,.0f} TFLOP/s, a bf16 product of matrices of {PEAK_SIZE} rows"
    header = ("", "examples/s", "speed / PyTorch", "GFLOP/example", *(["MFU"] if peak else []))
    timing.print_table(title, header, rows(medians, flops, peak, arguments.batch))
    if arguments.xla:
        print(f"--xla: {' '.join(arguments.xla)}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, help="examples, default %(default)s")
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
    if (ours == "gpu") != (theirs == "cuda"):
        raise UserError(f"JAX computes on {ours}, PyTorch on {theirs}: install both for the same device")
    return late_fusion_torch


def our_variants(options: Sequence[str]) -> list[Variant]:
    """Of both layouts in both precisions, and with options of XLA."""
    variants = [Variant("ours", precision, layout) for precision in ("fp32", "bf16") for layout in LAYOUTS]
    return variants + ([dataclasses.replace(CHECKED, options=tuple(options))] if options else [])


def their_variants(pytorch: types.ModuleType) -> list[Variant]:
    """PyTorch's in both precisions, on a GPU also compiled."""
    details = ("", "compiled") if pytorch.device() == "cuda" else ("",)
    return [Variant("PyTorch", precision, detail) for precision in ("fp32", "bf16") for detail in details]


def rows(
    medians: Mapping[Variant, float], flops: Mapping[str, float], peak: float | None, batch_size: int
) -> list[tuple[str, ...]]:
    """The table's rows, by precision, PyTorch's first.

    Args:
      medians: seconds of a step.
      flops: of a step, by layout.
      peak: FLOP/s of which the utilisation is a share; None for no such column.
      batch_size: examples of a step.
    """
    found = []
    for variant in sorted(medians, key=lambda v: (v.precision != "fp32", v.framework != "PyTorch")):
        seconds, reference = medians[variant], medians[Variant("PyTorch", variant.precision)]
        count = flops.get(variant.detail, flops["random"])
        row = (f"{batch_size / seconds:,.2f}", f"{reference / seconds:.2f}", f"{count / batch_size / 1e9:,.3g}")
        found.append((variant.name, *row, *([f"{count / seconds / peak:.1%}"] if peak else [])))
    return found


def check_losses(ours: "OurTraining", step: Step, theirs: Any, batch: PyTree) -> float:
    """Trains both by two steps on rows of one modality each, which no mask changes; their losses must agree.

    Returns:
      The largest difference of losses.

    Raises:
      RuntimeError: they do not.
    """
    present = np.eye(len(FAMILIES), dtype=bool)[np.arange(len(batch["label"])) % len(FAMILIES)]
    batch = {**batch, "present": present}
    our_batch, their_batch = sharding.put_batch(batch, ours.mesh), theirs.put_batch(batch)
    losses = [(float(ours.step(step, our_batch)["loss"]), theirs.step(their_batch, "fp32")) for _ in range(2)]
    difference = max(abs(ours - theirs) for ours, theirs in losses)
    if not difference < SAME:
        raise RuntimeError(f"losses of two steps, ours and PyTorch's, are not the same: {losses}")
    return difference


def matrix_product() -> Callable[[], jax.Array]:
    """A call multiplies two bfloat16 matrices of PEAK_SIZE rows and columns."""
    x = jax.random.normal(jax.random.key(0), (PEAK_SIZE, PEAK_SIZE), jnp.bfloat16)  # zeros would be faster: less power
    product = jax.jit(jnp.matmul)
    return lambda: product(x, x)


# --- what both train --------------------------------------------------------------------------------------------------


def fusion_stage() -> ConfigDict:
    """The stage as for fine-tuning, at a constant learning rate."""
    stage = config_lib.default_config().fusion
    stage.update({"learning_rate": 5e-5, "weight_decay": 0.01, "warmup": 0.0})
    return stage


def their_fields(quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `transformers`' ViTConfig and BertConfig, whose defaults are ViT-B/16 and BERT-base."""
    if not quick:
        return {}, {}
    return {**SMALL, "image_size": SMALL_SIDE, "patch_size": 8}, {**SMALL, "vocab_size": 200}


def example_batch(batch_size: int, quick: bool) -> PyTree:
    """A training batch of noise, with texts of several lengths, as NumPy arrays."""
    rng = np.random.default_rng(0)
    side = SMALL_SIDE if quick else SIDE
    text = {
        "tokens": rng.integers(1, 200, (batch_size, TOKENS)).astype(np.int32),
        "length": rng.integers(8, TOKENS, batch_size, endpoint=True).astype(np.int32),
    }
    return {
        "inputs": {"image": rng.integers(0, 256, (batch_size, side, side, 3), np.uint8), "text": text},
        "present": np.ones((batch_size, len(FAMILIES)), bool),
        "label": rng.integers(0, CLASSES, batch_size).astype(np.int32),
        "weight": np.ones(batch_size, np.float32),
    }


# --- ours -------------------------------------------------------------------------------------------------------------


class OurTraining:
    """The fusion stage, whose state every variant of the step takes and hands on: parameters are always float32.

    Attributes:
      mesh: one device, as PyTorch uses.
      state: steps donate it.
    """

    def __init__(self, theirs: Any, stage: ConfigDict, policy: missing.Policy, batch: PyTree, attention: str) -> None:
        """Starts from the weights of PyTorch's model; `attention` is the implementation in bfloat16."""
        self.mesh = Mesh(np.array(jax.devices()[:1]), (sharding.AXIS,))
        self.stage, self.policy, self.batch, self.attention = stage, policy, batch, attention
        with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
            encoders = {name: converted(theirs, name, Path(folder)) for name in FAMILIES}
            self.fields = {name: encoder.card.fields for name, encoder in encoders.items()}
            spec = self._spec(CHECKED)
            variables = steps.init_variables(spec.model, batch, spec.seed, means={})
            variables = {**variables, "params": started(variables["params"], encoders, theirs)}
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
        host = Mesh(np.array(jax.devices("cpu")[:1]), (sharding.AXIS,))
        return self._lowered(Variant("ours", "fp32", layout), host).cost_analysis()["flops"]

    def _lowered(self, variant: Variant, mesh: Mesh) -> jax.stages.Lowered:
        step, _ = sharding.compile_step(steps.make_step(self._spec(variant), means={}), mesh, "jit")
        return step.lower(*jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (self.state, self.batch)))

    def step(self, compiled: Step, batch: PyTree) -> steps.Metrics:
        """One step, by any of its variants."""
        self.state, metrics = compiled(self.state, batch)
        return metrics

    def _spec(self, variant: Variant) -> steps.StageSpec:
        model = LateFusion(tuple(self._tower(name, variant.precision) for name in FAMILIES), CLASSES)
        trained = steps.trained_groups("fusion", model)
        stratified = variant.detail == "stratified"
        return steps.StageSpec(
            name="fusion",
            model=model,
            optimizer=steps.make_optimizer(self.stage, total_steps=10**6, scales=dict.fromkeys(trained, 1.0)),
            trained=trained,
            seed=0,
            policy=self.policy,
            layout=missing.stratified_layout(self.policy, len(self.batch["label"])) if stratified else None,
        )

    def _tower(self, name: str, precision: str) -> Tower:
        in_bf16 = {"dtype": "bfloat16", "attention": self.attention} if precision == "bf16" else {}
        return Tower(
            name=name,
            preprocess=preprocess.build(MODALITIES[name].kind, MODALITIES[name], {}, name),
            encoder=functools.partial(encoder_module(FAMILIES[name]).Model, **self.fields[name], **in_bf16),
        )


def converted(theirs: Any, name: str, folder: Path) -> Converted:
    """An encoder of PyTorch's model, saved and converted as a user would."""
    theirs.encoders[name].save_pretrained(folder / f"{name}_original")
    convert(FAMILIES[name], folder / f"{name}_original", folder / name)
    return Converted(folder / name)


def started(params: PyTree, encoders: Mapping[str, Converted], theirs: Any) -> PyTree:
    """Our parameters with the values of PyTorch's model."""
    fusion, groups = {}, {}
    for name, encoder in encoders.items():
        head = theirs.heads[name]
        groups |= {f"encoders_{name}": encoder.fit({"params": params[f"encoders_{name}"]})["params"]}
        groups |= {f"tokens_{name}": {"feature": array(theirs.tokens[name])}}
        fusion |= {f"kernel_{name}": array(head.weight).T, f"bias_{name}": array(head.bias)}
    return jax.tree.map(jnp.array, {**params, **groups, "fusion": fusion})


def array(tensor: Any) -> np.ndarray:
    """A PyTorch parameter as NumPy has it."""
    return tensor.detach().numpy()


if __name__ == "__main__":
    workload.run(main)
