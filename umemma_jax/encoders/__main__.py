"""The encoders whose weights can be converted, and what a checkpoint is, without converting it.

python -m umemma_jax.encoders [CHECKPOINT ...]
"""

import math
import os
from collections.abc import Iterator, Sequence

from umemma_jax import command
from umemma_jax.weights import convert, files, recognition


def listing() -> Iterator[str]:
    """One line for each format of weights: the encoder module, and whose naming it is."""
    for family in recognition.families():
        for table in recognition.formats(family):
            yield f"{family}: {table.name}"


def description(checkpoint: str | os.PathLike) -> str:
    """What a checkpoint is, in one line: format, learned numbers, and the encoder and its fields that take it.

    Args:
      checkpoint: what `files.open_weights` takes; its tensors are not read.

    Raises:
      UserError: it cannot be read, no encoder takes it, or its config.json does not say enough.
    """
    opened = files.open_weights(checkpoint)
    family = recognition.family_of(opened, list(recognition.families()))
    plan = convert.make_plan(family, opened, {}, checkpoint)
    learned = [rule for rule in plan.rules if all(path.startswith("params/") for path in rule.ours)]
    count = sum(math.prod(plan.source.shapes[name]) for rule in learned for name in rule.theirs)
    fields = ", ".join(f"{name}={value}" for name, value in plan.fields.items())
    return f"{checkpoint}: {plan.table.name}, {count:,} parameters, loads as {family} ({fields})"


def main(argv: Sequence[str] | None = None) -> None:
    """Does what the command line says. Raises UserError for a mistake in it."""
    parser = command.Parser(
        prog="python -m umemma_jax.encoders", allow_abbrev=False, description=__doc__.splitlines()[0]
    )
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="a file or a folder of weights")
    checkpoints = parser.parse_args(argv).checkpoints
    for line in map(description, checkpoints) if checkpoints else listing():
        print(line)


if __name__ == "__main__":
    command.run(main)
