"""The program of a trained model as one ONNX file, which ONNX Runtime runs: by jax2onnx, of the extra `onnx`.

It has what `umemma_jax.program` says, the presence mask as an input, any number of rows, and one file for all missing
patterns; docs/export.md says which encoders convert. Encoders compute in float32, since ONNX Runtime has few operators
of bfloat16.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from umemma_jax import export as exporting
from umemma_jax import program
from umemma_jax.data.unfinished import appearing
from umemma_jax.errors import UserError
from umemma_jax.model import Tower, field_types
from umemma_jax.saved_model import SavedModel
from umemma_jax.serving import model_file, signature
from umemma_jax.serving.inputs import VALUES


def export(model: SavedModel, path: Path) -> None:
    """Writes a model as an ONNX file; its metadata have what `model.json` of `umemma_jax.export` says, as that name.

    An input is called as its modality, or `MODALITY.ARRAY` where it is several arrays; `present` is the mask. Outputs
    are called as those of `program.of`.

    Args:
      model: as it was saved.
      path: of the file; what is there is replaced.

    Raises:
      UserError: jax2onnx is not installed, or cannot convert one of the encoders; or the file cannot be written.
    """
    try:
        import jax2onnx
        import onnx
    except ModuleNotFoundError as error:
        raise UserError(f"export to ONNX: needs the package {error.name}: pip install 'umemma_jax[onnx]'") from error
    model = in_float32(model)
    weights, inputs = exporting.arguments(model)
    function, outputs = jax.tree.map(jnp.asarray, weights), []

    def answer(inputs: Any, present: jax.Array) -> list[jax.Array]:
        said = program.of(model)(function, inputs, present)
        outputs[:] = said
        return list(said.values())

    _, *given = signature.arguments({}, inputs, signature.sizes(inputs))
    # Traced before jax2onnx puts operators of its own in place of what JAX computes.
    traced = jax.make_jaxpr(answer)(*given)
    names = [m if array == VALUES else f"{m}.{array}" for m in sorted(given[0]) for array in sorted(given[0][m])]
    try:
        with _mended():
            converted = jax2onnx.to_onnx(
                jax.extend.core.jaxpr_as_fun(traced),
                jax.tree.leaves(given),
                input_names=[*names, "present"],
                output_names=outputs,
                model_name="model",
            )
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"export to ONNX: jax2onnx cannot convert this model ({reason}): use .stablehlo") from error
    _use_directly(converted.graph)
    described = {**exporting.about(model), "inputs": inputs}
    onnx.helper.set_model_props(converted, {model_file.DESCRIPTION: json.dumps(described, allow_nan=False)})
    with appearing(path) as partial:
        onnx.save_model(converted, partial)


def in_float32(model: SavedModel) -> SavedModel:
    """The same model, whose encoders compute in float32."""
    towers = tuple(dataclasses.replace(tower, encoder=_float32_encoder(tower)) for tower in model.module.towers)
    inputs = tuple(dataclasses.replace(x, tower=tower) for x, tower in zip(model.inputs, towers, strict=True))
    return dataclasses.replace(model, module=model.module.clone(towers=towers), inputs=inputs)


def _float32_encoder(tower: Tower) -> functools.partial:
    encoder = tower.encoder
    has_dtype = "dtype" in field_types(encoder.func)
    return functools.partial(encoder, dtype="float32") if has_dtype else encoder


# --- what jax2onnx 0.17 lacks -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mended() -> Iterator[None]:
    """Teaches jax2onnx sizes that are no numbers, which some of its operators refuse, and the Fourier transform."""
    from jax2onnx.plugins.jax.core.jit import JitPlugin
    from jax2onnx.plugins.plugin_system import PLUGIN_REGISTRY
    from onnx_ir import _core

    class Transform(JitPlugin):
        """The one `custom_partitioning` that there is, `preprocess.fourier`'s: its own transform has ONNX refuse it."""

        def lower(self, ctx: Any, eqn: Any) -> None:
            (frames,) = eqn.invars
            made = jax.make_jaxpr(_fourier)(jax.ShapeDtypeStruct(frames.aval.shape, frames.aval.dtype))
            super().lower(ctx, eqn.replace(params={"call_jaxpr": made}))

    convert, name = _core._maybe_convert_to_symbolic_dim, "custom_partitioning"
    _core._maybe_convert_to_symbolic_dim = lambda n: convert(str(n) if jax.export.is_symbolic_dim(n) else n)
    PLUGIN_REGISTRY[name] = Transform()
    try:
        yield
    finally:
        _core._maybe_convert_to_symbolic_dim = convert
        del PLUGIN_REGISTRY[name]


def _use_directly(graph: Any) -> None:
    """Has the branches of conditionals read what is outside, not the copy that jax2onnx makes of each value there.

    ONNX Runtime 1.32 loses copies of weights where it joins them with what follows.
    """
    for branch in (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")):
        kept = {output.name for output in branch.output}
        copies = [node for node in branch.node if node.op_type == "Identity" and node.output[0] not in kept]
        original = {}
        for node in copies:  # in the order in which they are computed
            original[node.output[0]] = original.get(node.input[0], node.input[0])
            branch.node.remove(node)
        for node in branch.node:
            node.input[:] = [original.get(name, name) for name in node.input]


def _fourier(frames: jax.Array) -> jax.Array:
    """`jnp.fft.rfft` of [B, T, N] as a product with a matrix: complex64 [B, T, N // 2 + 1]."""
    points = frames.shape[-1]
    angles = 2 * np.pi * np.outer(np.arange(points), np.arange(points // 2 + 1)) / points
    cosine, sine = (jnp.asarray(x, jnp.float32) for x in (np.cos(angles), -np.sin(angles)))
    return jax.lax.complex(jnp.matmul(frames, cosine), jnp.matmul(frames, sine))
