"""Training steps against what the machine can do, with every switch on its own: one table per pair of encoders.

python -m benchmarks.roofline [--pair=vision_language] [--size=base] [--batch=N] [--dtype=bfloat16] [--switch=scan]

Pairs: `vision_language` (ViT on 224x224 pixels, BERT on 40 tokens), `audio_visual` (two ResNet-18s, on three frames of
224x224 pixels and on the spectrogram of 3 s of sound) and `lenets` (MultiBench's, on 28x28 pixels and on a spectrogram
of 112x112). All of them in late fusion, under missing augmentation by thirds, with AdamW, on one device. Size `base`
has the published widths (ViT-B/16, BERT-base, ResNet-18), `small` narrower and shallower encoders of the same inputs;
MultiBench's LeNets are the same in both. By default it is `small` in float32 on a CPU, else `base` in bfloat16.

The first row is the baseline; each of the others differs from it in one switch, if an encoder of the pair has it. All
steps take turns, on one batch that lies on the device, and so do the ceilings. What a device refuses, or has not the
memory for, is left out and said below the table.

- FLOP/s, and its share of the ceiling: of the model's FLOPs, which are XLA's count for the plain step, before it is
  optimised: in float32, no layer scanned (XLA counts the body of a loop once) and none computed again. What a switch
  computes beyond that does not count as work done.
- ceiling: the best product of two square matrices among several sizes, in the row's dtype. float32 is what JAX
  multiplies it in by default: TF32 on recent NVIDIA GPUs, bfloat16 on TPUs.
- moved, and FLOP/byte: what the compiled step's operations read and write by XLA's count, caches or not; none for
  steps with a loop, as above.
- memory: arguments, results and temporaries of the compiled step.
- compile: with tracing.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import audio_visual_step, lenet_step, multibench, timing, vision_language_step, workload
from umemma_jax import command, missing, preprocess
from umemma_jax import config as config_lib
from umemma_jax.data.kinds import Modality
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.model import LateFusion, Tower, encoder_module
from umemma_jax.training import steps

PyTree = Any
SECONDS = 30.0  # of each table
PRODUCT_SIZES = tuple(2**n for n in range(9, 15))  # sides of square matrices
LONGEST_PRODUCT = 0.1  # seconds: no larger ones are tried
HEADER = (
    "",
    "ms",
    "examples/s",
    "speed / baseline",
    "GFLOP/s",
    "of ceiling",
    "MB moved",
    "GB/s",
    "FLOP/byte",
    "memory, MB",
    "compile, s",
)


@dataclasses.dataclass(frozen=True)
class Switches:
    """How a step is computed.

    Attributes:
      dtype, attention, fused_qkv, scan, remat: fields of the encoders.
      layout: `random`, `compacted` or `stratified`, as in `workload.fusion_spec`; or `complete`, which is without
        missing augmentation.
      accumulate, moments: fields of the stage.
      donate: whether the new state takes the old one's memory.
      optimisation: key of OPTIMISATION.
    """

    dtype: str
    attention: str = "xla"
    fused_qkv: bool = True
    scan: bool = False
    remat: bool = False
    layout: str = "random"
    accumulate: int = 1
    moments: str = "float32"
    donate: bool = True
    optimisation: str = "default"


ENCODER_SWITCHES = ("dtype", "attention", "fused_qkv", "scan", "remat")
STAGE_SWITCHES = ("accumulate", "moments")
VALUES = {
    "dtype": ("float32", "bfloat16"),
    "attention": ("xla", "cudnn"),
    "fused_qkv": (True, False),
    "scan": (False, True),
    "remat": (False, True),
    "layout": ("random", "compacted", "stratified", "complete"),
    "accumulate": (1, 2),
    "moments": ("float32", "bfloat16"),
    "donate": (True, False),
    "optimisation": ("default", "backend 0", "O1"),
}
OPTIMISATION = {  # options of XLA
    "default": {},
    "backend 0": {"xla_backend_optimization_level": 0},
    "O1": {"optimization_level": 19},  # XLA's number for what JAX_OPTIMIZATION_LEVEL=O1 asks for
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two encoders and their inputs.

    Attributes:
      title: both, for the table.
      families: of the encoders, by modality.
      fields: of the encoders, by size and modality.
      modalities: what a dataset would state of them.
      preprocess: of them, as in a config.
      classes: K.
      batch: (batch size, whether the inputs are tiny) -> training batch of NumPy arrays.
      batch_sizes: default by size.
      counted: an encoder that computes the same and whose FLOPs are the model's, where ours trades them for speed.
    """

    title: str
    families: Mapping[str, str]
    fields: Mapping[str, Mapping[str, Mapping[str, Any]]]
    modalities: Mapping[str, Modality]
    preprocess: Mapping[str, Mapping[str, Any]]
    classes: int
    batch: Callable[[int, bool], PyTree]
    batch_sizes: Mapping[str, int]
    counted: type[nn.Module] | None = None

    def has(self, switch: str) -> bool:
        """Whether the switch is one of an encoder here, or of the step."""
        encoders = [encoder_module(family).Model for family in self.families.values()]
        return switch not in ENCODER_SWITCHES or any(hasattr(encoder, switch) for encoder in encoders)


def lenet_batch(batch_size: int, quick: bool) -> PyTree:
    """A training batch of noise, as NumPy arrays, always of MultiBench's shapes."""
    rng = np.random.default_rng(0)
    samples = multibench.SIDE * multibench.HOP
    sound = {
        "samples": rng.integers(-(2**13), 2**13, (batch_size, samples), np.int16),
        "length": np.full(batch_size, samples, np.int32),
    }
    return {
        "inputs": {"image": rng.integers(0, 256, (batch_size, *workload.IMAGE_SHAPE), np.uint8), "audio": sound},
        "present": np.ones((batch_size, 2), bool),
        "label": rng.integers(0, workload.CLASSES, batch_size).astype(np.int32),
        "weight": np.ones(batch_size, np.float32),
    }


SMALL_TRANSFORMER = {"width": 192, "depth": 4, "heads": 3, "mlp_width": 768}
LARGE_TRANSFORMER = {"width": 1024, "depth": 24, "heads": 16, "mlp_width": 4096}
GIANT_VIT = {
    "width": 1408,
    "depth": 40,
    "heads": 16,
    "mlp_width": 6144,
    "patch": 14,
}  # Zhai et al., 2021, arXiv 2106.04560
TINY_TRANSFORMER = {"width": 48, "depth": 1, "heads": 2, "mlp_width": 96}
LENETS = {"image": {"channels": 6, "layers": 3}, "audio": {"channels": 6, "layers": 5}}
PAIRS = {
    "vision_language": Pair(
        title="ViT and BERT",
        families={"image": "vit", "text": "bert"},
        fields={
            "giant": {"image": GIANT_VIT, "text": LARGE_TRANSFORMER},
            "large": {"image": LARGE_TRANSFORMER, "text": LARGE_TRANSFORMER},
            "base": {"image": {}, "text": {}},
            "small": {"image": SMALL_TRANSFORMER, "text": {**SMALL_TRANSFORMER, "vocabulary": 1000}},
            "tiny": {"image": TINY_TRANSFORMER, "text": {**TINY_TRANSFORMER, "vocabulary": 200}},
        },
        modalities={"image": vision_language_step.IMAGE, "text": Modality(kind="text", encoding="utf-8")},
        preprocess={},
        classes=vision_language_step.CLASSES,
        batch=vision_language_step.example_batch,
        batch_sizes={"base": 192, "small": 6, "tiny": 6},
    ),
    "audio_visual": Pair(
        title="two ResNet-18s",
        families={"frames": "resnet", "sound": "resnet"},
        fields={
            size: {"frames": {"width": width}, "sound": {"width": width}}
            for size, width in {"base": 64, "small": 16, "tiny": 4}.items()
        },
        modalities={"frames": audio_visual_step.FRAMES, "sound": audio_visual_step.SOUND},
        preprocess={
            "frames": {"frames": audio_visual_step.FRAMES.max_frames},
            "sound": {"form": "stft", **audio_visual_step.SPECTROGRAM},
        },
        classes=audio_visual_step.CLASSES,
        batch=audio_visual_step.example_batch,
        batch_sizes={"base": 96, "small": 6, "tiny": 6},
    ),
    "lenets": Pair(
        title="two LeNets",
        families={"image": "lenet", "audio": "lenet"},
        fields=dict.fromkeys(("base", "small", "tiny"), LENETS),
        modalities={
            "image": Modality(kind="image", encoding="raw", shape=workload.IMAGE_SHAPE, mean=(127.5,), std=(73.9,)),
            "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=workload.SAMPLE_RATE),
        },
        preprocess={"audio": {"n_mels": multibench.SIDE, "hop_length": multibench.HOP, "n_fft": 512}},
        classes=workload.CLASSES,
        batch=lenet_batch,
        batch_sizes={"base": 768, "small": 48, "tiny": 6},
        counted=lenet_step.PlainLeNet,
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    on_cpu = jax.default_backend() == "cpu"
    size = "tiny" if arguments.quick else arguments.size or ("small" if on_cpu else "base")
    baseline = Switches(dtype=arguments.dtype or ("float32" if on_cpu else "bfloat16"))
    for name in (arguments.pair,) if arguments.pair else PAIRS:
        pair = PAIRS[name]
        batch_size = arguments.batch or pair.batch_sizes[size]
        if batch_size < 1 or batch_size % max(VALUES["accumulate"]):
            raise UserError(f"--batch={arguments.batch}: give it an even number, since a row accumulates over halves")
        batch = pair.batch(batch_size, arguments.quick)
        sides, seconds = (PRODUCT_SIZES[:2], 0) if arguments.quick else (PRODUCT_SIZES, SECONDS)
        tabulate(pair, size, batch, variants(pair, baseline, arguments.switch), sides, seconds)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=PAIRS, help="default: a table for each")
    parser.add_argument("--size", choices=("base", "small"), help="default: base, on CPU small")
    parser.add_argument("--batch", type=int, help="examples; by default it depends on pair and size")
    parser.add_argument("--dtype", choices=VALUES["dtype"], help="of the baseline; default: bfloat16, on CPU float32")
    parser.add_argument("--switch", action="append", default=[], choices=VALUES, help="rows of this one only; repeat")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few steps; the figures mean nothing")
    return parser.parse_args(argv)


def tabulate(
    pair: Pair, size: str, batch: PyTree, wanted: Mapping[str, Switches], sides: Sequence[int], seconds: float
) -> None:
    """Compiles and times what `variants` gives, and products of matrices of these sides; prints the table."""
    baseline = wanted["baseline"]
    left_out = {name: reason for name, switches in wanted.items() if (reason := impossible(switches))}
    rows = {name: switches for name, switches in wanted.items() if name not in left_out}
    dtypes = sorted({switches.dtype for switches in rows.values()})
    layouts = {switches.layout for switches in rows.values()}
    examples = len(batch["label"])

    # Before all that takes long, as it may fail.
    flops = {layout: model_flops(pair, size, layout, batch) for layout in layouts}

    training = Training(pair, size, batch)
    for name, switches in list(rows.items()):
        print(f"{pair.title}: compiling {name}", file=sys.stderr)
        if reason := attempt(training, switches):
            left_out[name] = reason
            del rows[name]
    if "baseline" in left_out:
        raise UserError(f"{pair.title}: the baseline fails, give it a smaller --batch: {left_out['baseline']}")
    runs = {name: functools.partial(training.step, switches) for name, switches in rows.items()}
    multiplied = {dtype: products(dtype, sides) for dtype in dtypes}
    runs |= {(dtype, side): run for dtype in dtypes for side, run in multiplied[dtype].items()}
    copied = 2**27 if jax.default_backend() == "cpu" else 2**29  # float32 values, a millisecond or more
    runs["copy"] = copy(copied)
    times = {name: float(np.median(values)) for name, values in timing.interleaved(runs, seconds).items()}

    ceilings = {d: max(2 * side**3 / times[d, side] for side in multiplied[d]) for d in dtypes}
    listed = ", ".join(f"{ceiling / 1e12:,.3g} TFLOP/s in {dtype}" for dtype, ceiling in ceilings.items())
    timing.print_table(
        f"Training step of {pair.title}, size {size}, batch {examples}: medians; baseline {baseline.dtype}, layout "
        f"{baseline.layout}, {flops[baseline.layout] / examples / 1e9:,.3g} GFLOP an example; ceiling {listed}; "
        f"a copy moves {2 * 4 * copied / times['copy'] / 1e9:,.3g} GB/s",
        HEADER,
        [
            (
                name,
                f"{1e3 * times[name]:,.1f}",
                f"{examples / times[name]:,.1f}",
                f"{times['baseline'] / times[name]:.2f}",
                *ceiling_cells(flops[switches.layout], times[name], ceilings[switches.dtype]),
                *memory_cells(switches, training.compiled[switches], flops[switches.layout], times[name]),
                f"{training.compiled[switches].seconds:.1f}",
            )
            for name, switches in rows.items()
        ],
    )
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")


def variants(pair: Pair, baseline: Switches, chosen: Collection[str]) -> dict[str, Switches]:
    """The baseline, and what differs from it in one of the chosen switches, all of them if empty."""
    found = {"baseline": baseline}
    for switch, values in VALUES.items():
        if pair.has(switch) and (switch in chosen or not chosen):
            others = [value for value in values if value != getattr(baseline, switch)]
            found |= {f"{switch} {value}": dataclasses.replace(baseline, **{switch: value}) for value in others}
    return found


def impossible(switches: Switches) -> str:
    """Why a step cannot be computed here; empty if it can."""
    if switches.attention == "cudnn" and jax.default_backend() != "gpu":
        return f"cuDNN needs a GPU, and this is {jax.default_backend()}"
    if switches.attention == "cudnn" and switches.dtype == "float32":
        return "cuDNN's attention takes 16-bit dtypes, add --dtype=bfloat16"
    if switches.optimisation == "backend 0" and jax.default_backend() == "gpu":
        return "XLA does not support it on GPUs"
    return ""


def attempt(training: "Training", switches: Switches) -> str:
    """Compiles a step and takes it once; why that fails (memory, what a library supports), empty if it does not."""
    try:
        training.compile(switches)
        jax.block_until_ready(training.step(switches))
    except RuntimeError as error:  # XLA's and cuDNN's are such
        training.drop(switches)
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def ceiling_cells(flops: float, seconds: float, ceiling: float) -> tuple[str, ...]:
    """GFLOP/s, and its share of the ceiling."""
    return f"{flops / seconds / 1e9:,.0f}", f"{flops / seconds / ceiling:.1%}"


def memory_cells(switches: Switches, compiled: "Compiled", flops: float, seconds: float) -> tuple[str, ...]:
    """MB moved, GB/s, FLOP/byte and MB of memory, each a dash where it is not known."""
    memory = f"{compiled.memory / 1e6:,.0f}" if compiled.memory else "-"
    moved = compiled.bytes_accessed
    if not moved or switches.scan or switches.accumulate > 1:
        return "-", "-", "-", memory
    return f"{moved / 1e6:,.0f}", f"{moved / seconds / 1e9:,.1f}", f"{flops / moved:,.1f}", memory


# --- steps ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
      step: (state, batch) -> (state, metrics).
      seconds: that compiling took, with tracing.
    """

    step: jax.stages.Compiled
    seconds: float

    @property
    def bytes_accessed(self) -> float | None:
        """What its operations read and write; None where the backend does not tell."""
        return (self.step.cost_analysis() or {}).get("bytes accessed")

    @property
    def memory(self) -> int | None:
        """Bytes of arguments, results and temporaries; None where the backend does not tell."""
        found = self.step.memory_analysis()
        if found is None:
            return None
        arguments, results = found.argument_size_in_bytes, found.output_size_in_bytes
        return arguments + results - found.alias_size_in_bytes + found.temp_size_in_bytes


class Training:
    """A pair's fusion stage, whose states the variants of the step take and hand on.

    Attributes:
      compiled: by switches.
    """

    def __init__(self, pair: Pair, size: str, batch: PyTree) -> None:
        """Puts the batch, of NumPy arrays, on the device."""
        self.pair, self.size, self.batch = pair, size, jax.device_put(batch)
        self.compiled: dict[Switches, Compiled] = {}
        self._states = {}  # steps that differ in other switches take each other's

    def compile(self, switches: Switches) -> None:
        """Makes the step of these switches."""
        state, spec = self._state(switches), self._spec(switches)
        start = time.perf_counter()
        compiled = jit_step(spec, switches.donate).lower(state, self.batch).compile(OPTIMISATION[switches.optimisation])
        self.compiled[switches] = Compiled(compiled, time.perf_counter() - start)

    def step(self, switches: Switches) -> steps.Metrics:
        """One step."""
        state, metrics = self.compiled[switches].step(self._state(switches), self.batch)
        self._states[_state_key(switches)] = state
        return metrics

    def drop(self, switches: Switches) -> None:
        """Forgets a step that failed, and the state that it may have consumed."""
        self.compiled.pop(switches, None)
        self._states.pop(_state_key(switches), None)

    def _spec(self, switches: Switches) -> steps.StageSpec:
        return stage_spec(self.pair, self.size, switches, len(self.batch["label"]))

    def _state(self, switches: Switches) -> steps.TrainState:
        key = _state_key(switches)
        if key not in self._states:
            spec = self._spec(switches)
            variables = steps.init_variables(spec.model, self.batch, spec.seed, means={})
            self._states[key] = steps.init_state(spec, variables)
        return self._states[key]


def _state_key(switches: Switches) -> tuple[bool, str]:
    return switches.scan, switches.moments


def stage_spec(
    pair: Pair,
    size: str,
    switches: Switches,
    batch_size: int,
    encoder: type[nn.Module] | None = None,
    stage: str = "fusion",
    shards: int = 1,
) -> steps.StageSpec:
    """A stage of training on so many slices of a batch; `encoder` stands in for both of the pair's."""

    def tower(name: str) -> Tower:
        model = encoder or encoder_module(pair.families[name]).Model
        chosen = {switch: getattr(switches, switch) for switch in ENCODER_SWITCHES if hasattr(model, switch)}
        modality = pair.modalities[name]
        return Tower(
            name=name,
            preprocess=preprocess.build(modality.kind, modality, pair.preprocess.get(name, {}), name),
            encoder=functools.partial(model, **pair.fields[size][name], **chosen),
        )

    config = config_lib.default_config()[stage]
    config.update({switch: getattr(switches, switch) for switch in STAGE_SWITCHES})
    model = LateFusion(tuple(map(tower, pair.families)), pair.classes)
    if stage == "unimodal":
        return workload.unimodal_spec(model, config)
    policy = missing.policy_from_config({"augment": switches.layout != "complete", "keep": {}}, tuple(pair.families))
    return workload.fusion_spec(model, config, policy, batch_size, switches.layout, shards)


def jit_step(spec: steps.StageSpec, donate: bool) -> Any:
    """(state, batch) -> (state, metrics) on one device, jitted."""
    step = steps.make_step(spec, means={})
    return jax.jit(lambda state, batch: step(state, batch, sharding.Devices()), donate_argnums=(0,) if donate else ())


def model_flops(pair: Pair, size: str, layout: str, batch: PyTree) -> float:
    """FLOPs of the plain training step, counted on the host, where no library hides them, before optimisation.

    With the layout `compacted` they are those of `stratified`: its batches are as incomplete.
    """
    layout = "stratified" if layout == "compacted" else layout
    spec = stage_spec(pair, size, Switches("float32", layout=layout), len(batch["label"]), pair.counted)

    def init() -> steps.TrainState:
        variables = spec.model.init(jax.random.key(0), batch["inputs"], batch["present"], train=False, means={})
        return steps.init_state(
            spec, {"params": dict(variables["params"]), "batch_stats": dict(variables.get("batch_stats", {}))}
        )

    with jax.default_device(workload.host()):
        return jit_step(spec, donate=True).lower(jax.eval_shape(init), batch).cost_analysis()["flops"]


# --- ceilings ---------------------------------------------------------------------------------------------------------


def products(dtype: str, sides: Sequence[int]) -> dict[int, Callable[[], jax.Array]]:
    """Calls that multiply two square matrices, by their side, up to the first that takes long."""
    found = {}
    for side in sides:
        x = jax.random.normal(jax.random.key(0), (side, side), dtype)  # zeros would be faster: less power
        found[side] = functools.partial(jax.jit(jnp.matmul), x, x)
        jax.block_until_ready(found[side]())
        if timing.seconds_of(found[side]) > LONGEST_PRODUCT:
            break
    return found


def copy(values: int) -> Callable[[], jax.Array]:
    """A call reads and writes so many values, 4 bytes each."""
    return functools.partial(jax.jit(lambda x: x + 1), jnp.zeros(values, jnp.float32))


if __name__ == "__main__":
    workload.run(main)
