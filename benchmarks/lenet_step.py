"""Training step of two LeNets joined late, at MultiBench's sizes: a plain Linen network against ours.

python -m benchmarks.lenet_step [--quick] [--return-memory]

LeNet(6, 3) on 28x28 images beside LeNet(6, 5) on 112x112 spectrograms, or beside a second LeNet(6, 3) on 28x28 images;
batch 40, an MLP on the joined features, cross-entropy, AdamW. The plain network is what one writes first: nn.Conv,
nn.BatchNorm, nn.max_pool. The inputs lie on the device. With --return-memory, freed memory goes back to the kernel
after each step, as it does in a process that does not call `devices.memory.keep_freed_memory` as main.py does.
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from umemma_jax import command
from umemma_jax.devices.memory import keep_freed_memory
from umemma_jax.encoders import lenet

BATCH, CLASSES, HIDDEN = 40, 10, 40
SECONDS = 40.0
PAIRS = {"28x28 + 112x112": ((28, 3), (112, 5)), "28x28 + 28x28": ((28, 3), (28, 3))}  # (side, layers) each


class PlainLeNet(nn.Module):
    """The same network as `umemma_jax.encoders.lenet`, layer by layer."""

    channels: int = 6
    layers: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Images [B, H, W, 1] or spectrograms [B, T, F] -> features [B, D]; `mask` is not used."""
        x = x[..., None] if x.ndim == 3 else x
        for layer in range(self.layers + 1):
            size = 5 if layer == 0 else 3
            x = nn.Conv(self.channels << layer, (size, size), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return x.reshape(x.shape[0], -1)


class LateFusion(nn.Module):
    """Two encoders and an MLP on their joined features."""

    encoders: tuple[nn.Module, nn.Module]

    @nn.compact
    def __call__(self, inputs: Sequence[jax.Array]) -> jax.Array:
        """Two batches of images -> logits [B, K], in training mode."""
        mask = jnp.ones(BATCH, bool)
        features = [encoder(x, mask, train=True) for encoder, x in zip(self.encoders, inputs, strict=True)]
        return nn.Dense(CLASSES)(nn.relu(nn.Dense(HIDDEN)(jnp.concatenate(features, axis=-1))))


ENCODERS = {"plain Linen": PlainLeNet, "umemma_jax": lenet.Model}


def training_step(encoder: type[nn.Module], pair: Sequence[tuple[int, int]]) -> Callable[[], jax.Array]:
    """A call makes one step, keeps the state, and returns the loss."""
    rng = np.random.default_rng(0)
    inputs = [jnp.array(rng.normal(size=(BATCH, side, side, 1)), jnp.float32) for side, _ in pair]
    labels = jnp.array(rng.integers(0, CLASSES, BATCH))
    model = LateFusion(tuple(encoder(channels=6, layers=layers) for _, layers in pair))
    variables = jax.jit(model.init)(jax.random.key(0), inputs)
    optimiser = optax.adamw(1e-3)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, inputs, labels):
        params, statistics, opt_state = state

        def loss(params):
            logits, updates = model.apply({"params": params, **statistics}, inputs, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), statistics, opt_state), value

    state = variables["params"], {"batch_stats": variables["batch_stats"]}, optimiser.init(variables["params"])

    def run() -> jax.Array:
        nonlocal state
        state, value = step(state, inputs, labels)
        return value

    return run


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps only; the figures mean little")
    parser.add_argument("--return-memory", action="store_true", help="give freed memory back to the kernel")
    arguments = parser.parse_args(argv)
    kept = not arguments.return_memory and keep_freed_memory()
    runs = {(name, pair): training_step(ENCODERS[name], PAIRS[pair]) for pair in PAIRS for name in ENCODERS}
    seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)
    medians = {run: np.median(values) for run, values in seconds.items()}
    rows = [
        (
            f"{pair}, {name}",
            f"{1e3 * time:.1f}",
            f"{BATCH / time:,.0f}",
            f"{medians['plain Linen', pair] / time:.2f}",
        )
        for (name, pair), time in medians.items()
    ]
    timing.print_table(
        f"Training step of two LeNets, batch {BATCH}: medians of {len(next(iter(seconds.values())))} steps each, "
        f"freed memory {'kept' if kept else 'returned'}",
        ("", "ms", "examples/s", "speed / plain"),
        rows,
    )


if __name__ == "__main__":
    command.run(main)
