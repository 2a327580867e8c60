"""Programs compiled for TPUs that are not there: memory, collectives, and the compiler's own estimate of the time.

python -m benchmarks.compiled --target=v5e:2x2 [--pair=vision_language] [--switch=layout] [--program=fusion]
python -m benchmarks.compiled --target=v5e:2x2 --config=configs/food101.py --data=DATA

Nothing runs on such a device: `libtpu`, which the extra `tpu-compiler` brings, compiles on any machine. Targets are
v5e, v6e and v5p with a topology, as in v5e:2x2, v6e:16x16 and v5p:4x4x4.

The programs are the training steps of both stages, the encoders of evaluation, and prediction: of a pair of encoders
as `benchmarks.roofline` has it, in bfloat16 and the stratified layout, with a row for every value of the switches
asked for; or of a recipe on prepared data.

- ms, examples/s: ESTIMATED by the compiler, not measured: the sum of the cycles that it expects of each operation,
  loops by their number of trips, of a conditional the cheapest branch, over the clock. What it estimates no cycles
  for (asynchronous copies, most collectives, kernels in Pallas) is not in them.
- of peak: of the model's FLOPs, as in `benchmarks.roofline`, in that time, over what all chips could do.
- memory: of arguments, results and temporaries, on one chip. This the compiler plans, and it is so.
- collectives: how many of each kind, and the bytes of their results on one chip.
- moved: share of the cycles of operations that only cast, transpose, copy, cut or join.
- fits: the largest batch of a chip, if memory grows in proportion between half the batch and the batch
  (--largest-batch, which compiles twice).
- Below, for each row: the lines of our code with the most cycles.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from benchmarks import roofline, timing, workload
from benchmarks.compiled import hlo, programs, targets
from umemma_jax import command
from umemma_jax.errors import UserError

SWITCHES = tuple(name for name in roofline.VALUES if name not in ("optimisation", "donate", "attention", "fused_qkv"))
COSTLY = 10
HEADER = (
    *("", "examples", "ms, est.", "examples/s a chip, est.", "of peak, est.", "memory, GB", "of chip", "collectives"),
    *("MB sent", "moved", "compile, s", "fits"),
)


class Row(NamedTuple):
    """A program to be compiled.

    Attributes:
      title: for the table.
      program: one of `programs.PROGRAMS`.
      subject: by examples a chip, whose program it is.
      plain: () -> what its FLOPs are counted of.
      batch: examples a chip.
    """

    title: str
    program: str
    subject: Callable[[int], programs.Subject]
    plain: Callable[[], programs.Subject]
    batch: int


class Compiled(NamedTuple):
    """A compiled program: how many examples it takes, its text, the bytes that it needs, and how long it took."""

    examples: int
    module: hlo.Module
    memory: int
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    jax.config.update("jax_platforms", "cpu")  # JAX would look for the TPU that `libtpu` is for
    target = targets.find(arguments.target, arguments.fsdp)
    rows = of_recipe(arguments, target) if arguments.config else of_pair(arguments, target)
    tabulate(arguments.target, target, rows, arguments.largest_batch)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = command.Parser(
        prog="python -m benchmarks.compiled",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", required=True, help="chip and topology: v5e:2x2")
    parser.add_argument("--pair", choices=roofline.PAIRS, default="vision_language", help="default: %(default)s")
    parser.add_argument(
        "--size",
        default="base",
        help="of the pair: base, small, tiny; of vision_language also large (ViT-L, BERT-large) and giant (ViT-g/14)",
    )
    parser.add_argument("--depth", type=int, help="layers of transformers; by default those of the size")
    parser.add_argument("--batch", type=int, default=96, help="examples a chip, default: %(default)s")
    parser.add_argument("--switch", action="append", default=[], choices=SWITCHES, help="rows of it too; repeat")
    parser.add_argument("--program", action="append", choices=programs.PROGRAMS, help="default: all; repeat")
    parser.add_argument("--config", type=workload.load_config, help="recipe[:argument] in place of a pair")
    parser.add_argument("--data", help="the recipe's prepared dataset")
    parser.add_argument("--fsdp", type=int, default=1, help="chips that parameters are split over, default: 1")
    parser.add_argument("--largest-batch", action="store_true", help="say which fits; compiles twice")
    return parser.parse_args(argv)


def of_pair(arguments: argparse.Namespace, target: targets.Target) -> list[Row]:
    """Rows of a pair of encoders: of each program the baseline, and what the switches vary of it."""
    pair, size, chips = roofline.PAIRS[arguments.pair], arguments.size, target.mesh.size
    if size not in pair.fields:
        raise UserError(f"--size={size}: {arguments.pair} has {', '.join(pair.fields)}")
    if arguments.depth:
        fields = {m: {**given, "depth": arguments.depth} for m, given in pair.fields[size].items()}
        pair = dataclasses.replace(pair, fields={size: fields})
    baseline = roofline.Switches("bfloat16", layout="stratified")
    wanted = {"": baseline}
    if arguments.switch:
        variants = roofline.variants(pair, baseline, arguments.switch)
        wanted |= {name: x for name, x in variants.items() if name != "baseline"}
    rows = []
    for program in arguments.program or programs.PROGRAMS:
        for name, switches in wanted.items():

            def subject(batch: int, switches: roofline.Switches = switches) -> programs.Subject:
                return programs.of_pair(pair, size, switches, batch * chips, target.mesh)

            def plain(layout: str = switches.layout) -> programs.Subject:
                return programs.plain_pair(pair, size, layout, arguments.batch * chips)

            rows.append(Row(f"{program} {name}".strip(), program, subject, plain, arguments.batch))
    return rows


def of_recipe(arguments: argparse.Namespace, target: targets.Target) -> list[Row]:
    """Rows of a recipe's programs, at its own batch sizes."""
    if arguments.switch or not arguments.data:
        raise UserError("--config: needs --data, and takes no --switch: write what differs into the recipe")
    config = arguments.config
    config.data.dir, config.fsdp = arguments.data, 1  # the mesh is the target's, not of the devices that are here
    subject = programs.of_recipe(config, target.mesh)
    names = arguments.program or [
        name for name in programs.PROGRAMS if name in (*subject.stages, *programs.PROGRAMS[2:])
    ]
    return [
        Row(name, name, lambda batch: subject, lambda: programs.plain_recipe(config), subject.examples(name))
        for name in names
    ]


def tabulate(name: str, target: targets.Target, rows: Sequence[Row], largest_batch: bool) -> None:
    """Compiles the rows, one after another, and prints the table and what each row spends its time on."""
    cells, left_out, spent = [], {}, {}
    for row in rows:
        print(f"compiling {row.title} for {name}", file=sys.stderr)
        try:
            compiled = build(row, row.batch)
            half = build(row, row.batch // 2) if largest_batch else None
        except RuntimeError as error:  # XLA's
            left_out[row.title] = " ".join(str(error).split())[:300]
            continue
        flops = programs.flops(row.plain(), row.program)
        cells.append((row.title, *cells_of(target, row, compiled, half, flops)))
        print("  ".join(cells[-1]), file=sys.stderr)  # as the next one may take long
        spent[row.title] = compiled.module
    chips = target.mesh.size
    timing.print_table(
        f"Compiled for {chips} x {name.partition(':')[0]} ({name}), {target.chip.flops / 1e12:.0f} TFLOP/s and "
        f"{target.chip.memory / 1e9:.1f} GB a chip; times are the compiler's estimates, nothing was run",
        HEADER,
        cells,
    )
    for title, reason in left_out.items():
        print(f"left out: {title}: {reason}")
    for title, module in spent.items():
        print_costly(title, module)


def build(row: Row, batch: int) -> Compiled:
    """Compiles a program for so many examples a chip."""
    start = time.perf_counter()
    subject = row.subject(batch)
    with targets.tracing_for("tpu"):
        compiled = subject.lower(row.program).compile()
    seconds = time.perf_counter() - start
    return Compiled(
        subject.examples(row.program),
        hlo.parse(compiled.as_text()),
        roofline.Compiled(compiled, seconds).memory,
        seconds,
    )


def cells_of(
    target: targets.Target, row: Row, compiled: Compiled, half: Compiled | None, flops: float
) -> tuple[str, ...]:
    """Of the table's row, without the title."""
    chip, chips = target.chip, target.mesh.size
    seconds = compiled.module.cycles / chip.clock
    sent = compiled.module.collectives()
    fits = "-" if half is None else f"~{largest(row.batch, compiled.memory, half.memory, chip.memory):,}"
    return (
        f"{compiled.examples:,}",
        f"{1e3 * seconds:,.2f}",
        f"{compiled.examples / chips / seconds:,.0f}",
        f"{flops / seconds / chips / chip.flops:.1%}",
        f"{compiled.memory / 1e9:,.2f}",
        f"{compiled.memory / chip.memory:.0%}",
        " + ".join(f"{count} {kind}" for kind, (count, _) in sent.items()) or "none",
        f"{sum(size for _, size in sent.values()) / 1e6:,.1f}",
        f"{compiled.module.moved / compiled.module.cycles:.1%}",
        f"{compiled.seconds:,.0f}",
        fits,
    )


def largest(batch: int, memory: int, half: int, most: float) -> int:
    """The batch at which a line through the memory of the batch and of half of it reaches `most`."""
    each = (memory - half) / (batch - batch // 2)
    return int(batch + (most - memory) / each)


def print_costly(title: str, module: hlo.Module) -> None:
    """Prints the lines of our code with the most cycles."""
    rows = [
        (place, label, f"{cycles / module.cycles:.1%}", f"{cycles:,}", f"{instructions:,}")
        for place, label, cycles, instructions in module.costly(COSTLY)
    ]
    print(f"\n{title}: most cycles, {COSTLY} of {module.cycles:,}\n")
    timing.print_rows(("line", "what", "share", "cycles", "operations"), rows)


if __name__ == "__main__":
    workload.run(main)
