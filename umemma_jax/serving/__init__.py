"""Answers for programs and people elsewhere: an exported model read with JAX and NumPy alone.

from umemma_jax import serving

model = serving.load("model.stablehlo")
model.predict({"image": pixels, "text": None})["probabilities"]
"""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """What is public is loaded, and JAX with it, when it is first asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from umemma_jax.serving.exported import load

    return load
