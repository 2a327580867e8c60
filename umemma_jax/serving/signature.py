"""What the program of an exported model takes and gives: arrays, described in JSON, of which some sizes are free.

The program is a function of (weights by name, inputs by modality and name, presence mask [batch, M]) and gives arrays
by name. A description is {"dtype": "uint8", "shape": ["batch", 28, 28, 1]}; where a size is a name any number fits.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.export
import numpy as np

Arrays = Mapping[str, np.ndarray]
Described = Mapping[str, Any]  # of an array, or an input
BATCH = "batch"


def free_length(modality: str) -> str:
    """The name of the length of an input that comes in several."""
    return f"length_{modality}"


def described(array: Any) -> dict[str, Any]:
    """The description of anything with a dtype and a shape, symbolic or not."""
    return {
        "dtype": np.dtype(array.dtype).name,
        "shape": [n if isinstance(n, int) else str(n) for n in array.shape],
    }


def arguments(weights: Arrays, inputs: Mapping[str, Described], scope: jax.export.SymbolicScope) -> tuple[Any, ...]:
    """The program's three arguments as `jax.ShapeDtypeStruct`.

    Args:
      weights: by name.
      inputs: as `model.json` describes them, by modality.
      scope: of the free sizes.
    """
    return (
        {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()},
        {m: {name: _struct(x, scope) for name, x in of_input["arrays"].items()} for m, of_input in inputs.items()},
        _struct({"dtype": "bool", "shape": [BATCH, len(inputs)]}, scope),
    )


def sizes(inputs: Mapping[str, Described]) -> jax.export.SymbolicScope:
    """The free sizes of inputs: no length is more than the largest of its input."""
    found = [(free_length(m), x["lengths"][-1]) for m, x in inputs.items() if len(x.get("lengths", ())) > 1]
    return jax.export.SymbolicScope([f"{name} <= {largest}" for name, largest in found])


def exported(description: Mapping[str, Any], module: bytes, weights: Arrays) -> jax.export.Exported:
    """The program as JAX calls it.

    `jax.export.deserialize` would need the package flatbuffers, for no more than what the description says.

    Args:
      description: the content of `model.json`.
      module: the StableHLO artifact.
      weights: by name.
    """
    program, scope = description["program"], sizes(description["inputs"])
    given = arguments(weights, description["inputs"], scope)
    outputs = {name: _struct(x, scope) for name, x in description["outputs"].items()}
    taken, made = (tuple(map(_abstract, jax.tree.leaves(tree))) for tree in (given, outputs))
    fields = {
        "fun_name": "model",
        "in_tree": jax.tree.structure((given, {})),
        "in_avals": taken,
        "out_tree": jax.tree.structure(outputs),
        "out_avals": made,
        "nr_devices": 1,
        "platforms": tuple(program["platforms"]),
        "ordered_effects": (),
        "unordered_effects": (),
        "disabled_safety_checks": (),
        "mlir_module_serialized": module,
        "calling_convention_version": program["calling_convention_version"],
        "module_kept_var_idx": tuple(program["takes"]),
        "uses_global_constants": True,
        # What is not public, and says in all versions that there are no shardings and no derivative.
        "_has_named_shardings": True,
        "_in_named_shardings": (None,) * len(taken),
        "_out_named_shardings": (None,) * len(made),
        "in_shardings_hlo": (None,) * len(taken),
        "out_shardings_hlo": (None,) * len(made),
        "_get_vjp": None,
    }
    known = jax.export.Exported.__dataclass_fields__
    return jax.export.Exported(**{name: value for name, value in fields.items() if name in known})


def _struct(array: Described, scope: jax.export.SymbolicScope) -> jax.ShapeDtypeStruct:
    shape = jax.export.symbolic_shape(", ".join(map(str, array["shape"])), scope=scope)
    return jax.ShapeDtypeStruct(shape, np.dtype(array["dtype"]))


def _abstract(struct: jax.ShapeDtypeStruct) -> jax.core.ShapedArray:
    return jax.core.ShapedArray(struct.shape, struct.dtype)
