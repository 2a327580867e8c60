"""UME-MMA in JAX: uni-modal ensembles that stand when a modality is missing (arXiv 2310.06383).

import umemma_jax as um

model = um.fit("train.csv", label="category", workdir="runs/mine")
print(model.evaluate("test.csv"))
model.predict({"photo": "x.jpg", "title": None})
model = um.load("runs/mine")
"""

from typing import Any

from umemma_jax import command

__version__ = "0.2.0"
__all__ = ["Predictor", "UserError", "cross_validate", "fit", "load"]

_WHERE = {
    "Predictor": "predictor",
    "UserError": "errors",
    "cross_validate": "fitting",
    "fit": "fitting",
    "load": "predictor",
}

command.begin(__name__)  # where one of its modules is the command


def __getattr__(name: str) -> Any:
    """What is public is loaded, and JAX with it, when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    with command.loading():
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
