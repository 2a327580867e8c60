"""The shipped recipes, compiled for four TPUs by their own compiler, which needs none. Nothing runs.

In an environment of its own, since JAX looks for TPUs wherever `libtpu` is: `pip install -e '.[test,tpu-compiler]'`,
and `pytest -n 2 --dist load tests/test_compiled_for_tpus.py`.
"""

import dataclasses

import jax
import pytest

from benchmarks.compiled import hlo, programs, targets
from tests import recipes
from umemma_jax.errors import UserError

pytest.importorskip("libtpu", reason="libtpu, the compiler for TPUs, is not installed (extra `tpu-compiler`)")

pytestmark = pytest.mark.usefixtures("optimised")

NARROW = {
    "resnet": {"width": 8},
    "audionet": {"channels": (8, 8)},
    "vit": {"depth": 1},
    "ast": {"depth": 1},
    "bert": {"depth": 1},
}
SAMPLES = 2000  # of sound
BFLOAT16 = ("food101.py", "mm_imdb.py", "ave.py:vit_ast")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    recipes.write_datasets(path)
    return path


@pytest.fixture(scope="module")
def four():
    """Four chips of TPU v5e, and no backend but the CPU, lest JAX look for them here."""
    jax.config.update("jax_platforms", "cpu")
    return targets.find("v5e:2x2")


def recipe(folder, name, mesh, layout="stratified"):
    """A recipe with few layers, pixels and seconds: what takes long is the compiler's choice of how to convolve."""
    config = recipes.load(folder, name, layout)
    for m in config.modalities:
        encoder, preprocess = config.inputs[m].encoder, config.inputs[m].preprocess
        encoder.update(NARROW.get(encoder.name, {}))
        if "crop" in preprocess:
            config.inputs[m].length, preprocess.crop = 48, 32
        elif config.inputs[m].length > SAMPLES:
            config.inputs[m].length = SAMPLES
    return programs.of_recipe(config, mesh)


def compile_for(subject, program):
    """The compiled program, and its text as read."""
    with targets.tracing_for("tpu"):
        found = subject.lower(program).compile()
    return found, hlo.parse(found.as_text())


def float32_products(module):
    """Of the model: what a recipe prepares of its inputs, such as spectra, is exact."""
    products = [product for product in module.products() if not product.line.startswith("preprocess/")]
    return [product.operation for product in products if set(product.dtypes) == {"f32"}]


@pytest.mark.parametrize("program", programs.PROGRAMS)
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_program_of_every_recipe(folder, four, name, program):
    """Compiles; sends gradients and statistics, or what is asked for, and nothing else; and never waits for a host."""
    subject = recipe(folder, name, four.mesh)
    _, module = compile_for(subject, program)
    sent = {"evaluation": set(), "prediction": {"all-gather"}}.get(program, {"all-reduce"})
    assert set(module.collectives()) == sent
    assert not module.host_transfers()
    assert module.cycles > 0
    if program in programs.STAGES:
        assert module.aliased == len(jax.tree.leaves(subject.state(program)))
    if name in BFLOAT16:
        assert all("/heads_" in operation or "/fusion/" in operation for operation in float32_products(module))


@pytest.mark.parametrize("layout", ["random", "compacted"])
@pytest.mark.parametrize("name", ["av_mnist.py", "food101.py"])
def test_rows_stay_on_their_chip_in_every_layout(folder, four, name, layout):
    _, module = compile_for(recipe(folder, name, four.mesh, layout), "fusion")
    assert set(module.collectives()) == {"all-reduce"}


def test_a_layout_for_one_shard_sends_rows(folder, four):
    """So that the test above tells them apart."""
    subject = recipe(folder, "food101.py", four.mesh)
    spec = subject.stages["fusion"]
    layout = dataclasses.replace(spec.layout, counts=tuple(4 * count for count in spec.layout.counts), shards=1)
    wrong = dataclasses.replace(subject, stages={"fusion": dataclasses.replace(spec, layout=layout)})
    _, module = compile_for(wrong, "fusion")
    assert set(module.collectives()) > {"all-reduce"}


def test_split_parameters_are_gathered_and_their_gradients_scattered(folder):
    wide = {"width": 128, "mlp_width": 256, "depth": 1}
    config = recipes.load(folder, "food101.py", "stratified", **wide)
    bytes_of_state = {}
    for fsdp in (1, 4):
        subject = programs.of_recipe(config, targets.find("v5e:2x2", fsdp).mesh)
        found, module = compile_for(subject, "fusion")
        bytes_of_state[fsdp] = found.memory_analysis().alias_size_in_bytes
        assert ("all-gather" in module.collectives()) == (fsdp == 4)
    assert {"all-gather", "reduce-scatter"} <= set(module.collectives())
    assert "all-to-all" not in module.collectives()
    assert bytes_of_state[4] < bytes_of_state[1] / 2  # what is small stays whole, padded to tiles


def test_a_target_that_is_not_there_is_refused_in_one_line():
    for name in ("v9:2x2", "v5e:7x7x7", "v5e"):
        with pytest.raises(UserError, match="--target=v") as error:
            targets.find(name)
        assert "\n" not in str(error.value)
