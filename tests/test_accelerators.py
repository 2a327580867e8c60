"""What GPUs and TPUs are given, without any: programs are lowered for them, and read; nothing is compiled or run.

Tracing asks for the backend in a few places, so each program is traced as on an accelerator.
"""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from benchmarks import roofline, workload
from tests import recipes
from tests.recipes import BATCH, CLASSES, LAYOUTS, RECIPES, TRANSFORMER, TRANSFORMERS
from umemma_jax import experiment
from umemma_jax.devices import sharding
from umemma_jax.encoders import transformer
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.model import encoder_module
from umemma_jax.training import stages, steps

PLATFORMS = ("cuda", "tpu")
MASK = r"mask_type\\22: \\22([A-Z_]+)"  # in a call of cuDNN
# Of the forward pass, and of XLA's own gradient of it by the inputs and by the kernel.
FORWARD, BY_INPUT, BY_KERNEL = "[b, f]x[i, o]->[b, f]", "[b, f]x[o, i]->[b, f]", "[f, b]x[i, o]->[b, f]"


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """What JAX says of its backend; `convolve` and the LeNets' layers ask."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def lower(traced, platforms=PLATFORMS):
    """The StableHLO of a traced function, by platform; what it calls outside of XLA is checked by `calls`."""
    return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms}


def calls(text):
    """Custom calls by name: of libraries and of the host; not what a compiler replaces by a computation of its own."""
    names = re.findall(r"custom_call @([\w$.]+)", text)
    return collections.Counter(name for name in names if name != "CustomSPMDPartitioning")


def products(text):
    """Matrix products and convolutions by the dtypes of their two operands."""
    pattern = r"stablehlo\.(?:dot_general|convolution)\b[^\n]* : \(tensor<[^>]*?(\w+)>, tensor<[^>]*?(\w+)>\)"
    found = [tuple(dtype.rpartition("x")[2] for dtype in pair) for pair in re.findall(pattern, text)]
    assert len(found) == len(re.findall(r"stablehlo\.(?:dot_general|convolution)\b", text))
    return collections.Counter(found)


def convolutions(text):
    """Convolutions by the order of their axes, without the spatial ones."""
    found = re.findall(r"dim_numbers = (\S.*?->\[.*?\])", text)
    return collections.Counter(re.sub(r"(?<=[\[ ])\d, |, \d(?=\])", "", numbers) for numbers in found)


# --- encoders ---------------------------------------------------------------------------------------------------------


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((BATCH, *shape), dtype)


TEXTS = {"tokens": shaped(16, dtype=jnp.int32), "length": shaped(dtype=jnp.int32)}
ENCODERS = {
    "resnet": ({"width": 4}, shaped(32, 32, 3)),
    "audionet": ({"channels": (4, 8)}, shaped(4000)),
    "lenet": ({"channels": 4, "layers": 2}, shaped(16, 16, 1)),
    "spectrogram_cnn": ({"channels": (4, 8)}, shaped(20, 16)),
    "vit": ({**TRANSFORMER, "patch": 8}, shaped(32, 32, 3)),
    "ast": (TRANSFORMER, shaped(56, 26)),
    "bert": ({**TRANSFORMER, "vocabulary": 20}, TEXTS),
    "word_embeddings": ({"vocabulary": 20, "width": 8}, TEXTS),
    "bag_of_words": ({"vocabulary": 20, "width": 8}, {**TEXTS, "weights": shaped(16)}),
}
CONVOLUTIONAL = ("resnet", "audionet", "lenet", "spectrogram_cnn")


def gradient(name, **fields):
    """A sum of features and its gradient by an encoder's parameters, traced."""
    given, x = ENCODERS[name]
    family = encoder_module(name).Model
    plain = {key: value for key, value in fields.items() if key == "scan"}
    variables = jax.eval_shape(family(**given, **plain).init, jax.random.key(0), x)
    encoder = family(**given, **fields)
    rest = {key: value for key, value in variables.items() if key != "params"}

    def loss(params, rest, x, mask):
        features, _ = encoder.apply({"params": params, **rest}, x, mask, train=True, mutable=list(rest))
        return features.astype(jnp.float32).sum()

    return jax.jit(jax.value_and_grad(loss)).trace(variables["params"], rest, x, shaped(dtype=bool))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutions_and_their_gradients_are_xlas_and_in_bfloat16(name):
    for text in lower(gradient(name, dtype="bfloat16")).values():
        assert not calls(text)
        assert set(products(text)) == {("bf16", "bf16")}
        kinds = convolutions(text)
        assert set(kinds) == {FORWARD, BY_INPUT, BY_KERNEL}
        # Every kernel has a gradient, and so has every input but that of the first layer.
        assert kinds[FORWARD] == kinds[BY_KERNEL] == kinds[BY_INPUT] + 1


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_cpu_is_given_others(name, monkeypatch):
    """So that the test above tells them apart: convolutions by windows, and gradients that are laid out."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    (text,) = lower(gradient(name), platforms=("cpu",)).values()
    assert set(convolutions(text)) <= {FORWARD}


@pytest.mark.parametrize("fields", [{}, {"fused_qkv": False}, {"scan": True}], ids=str)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_multiply_in_bfloat16(name, fields):
    """But for XLA's attention, which hands the softmax's gradient on in float32."""
    for text in lower(gradient(name, dtype="bfloat16", **fields)).values():
        assert not calls(text)
        found = products(text)
        layers_in_text = 1 if fields.get("scan") else TRANSFORMER["depth"]
        assert found.pop(("f32", "bf16")) == 2 * layers_in_text  # by queries and by keys
        assert set(found) == {("bf16", "bf16")}
        assert ("stablehlo.while" in text) == bool(fields.get("scan"))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_remat_multiplies_again(name, scan):
    """And outside of loops says so, since XLA would take two equal products for one."""
    traced = (gradient(name, dtype="bfloat16", scan=scan, remat=remat) for remat in (False, True))
    kept, anew = (lower(x, platforms=("cuda",))["cuda"] for x in traced)
    assert sum(products(anew).values()) > sum(products(kept).values())
    assert ("stablehlo.optimization_barrier" in anew) == (not scan)


@pytest.mark.parametrize("name", ["word_embeddings", "bag_of_words"])
def test_tables_of_vectors(name):
    for text in lower(gradient(name)).values():
        assert not calls(text)
        assert "stablehlo.gather" in text and "stablehlo.scatter" in text


# --- cuDNN's attention ------------------------------------------------------------------------------------------------

# JAX asks for cuDNN's version and for the GPU's; without a GPU it takes it for one before Hopper.


@pytest.fixture
def cudnn_found(monkeypatch):
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)


@pytest.mark.usefixtures("cudnn_found")
@pytest.mark.parametrize("fields", [{}, {"scan": True}, {"remat": True}], ids=str)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_cudnn_takes_the_attention_of_every_transformer(name, fields):
    """The numbers of tokens are 17, 18 and 16; JAX refuses the gradient on odd ones."""
    (text,) = lower(gradient(name, dtype="bfloat16", attention="cudnn", **fields), platforms=("cuda",)).values()
    layers_in_text = 1 if fields.get("scan") else TRANSFORMER["depth"]
    forward = 2 * layers_in_text if fields.get("remat") else layers_in_text
    assert calls(text) == {"__cudnn$fmhaSoftmax": forward, "__cudnn$fmhaSoftmaxBackward": layers_in_text}
    assert set(products(text)) == {("bf16", "bf16")}
    masks = set(re.findall(MASK, text))
    assert masks == {"NO_MASK" if name == "ast" else "PADDING"}


@pytest.mark.usefixtures("cudnn_found")
def test_cudnn_takes_causal_texts():
    (text,) = lower(gradient("bert", dtype="bfloat16", attention="cudnn", causal=True), platforms=("cuda",)).values()
    assert set(re.findall(MASK, text)) == {"PADDING_CAUSAL"}


@pytest.mark.parametrize(
    ("version", "dtype", "reason"),
    [(None, "bfloat16", "cuDNN is not detected"), (91000, "float32", "Q must be fp16/bf16.* got float32")],
)
def test_attention_that_cudnn_does_not_compute_is_refused_in_one_line(folder, version, dtype, reason, monkeypatch):
    if version:
        monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: version)
    with pytest.raises(
        UserError, match=rf"config\.inputs\.image\.encoder: vit \(attention=.*\) fails .*{reason}"
    ) as error:
        build(folder, "food101.py", attention="cudnn", dtype=dtype)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]], ids=["all", "some"])
def test_a_token_that_makes_their_number_even_changes_nothing(lengths, monkeypatch):
    """With XLA's attention in cuDNN's place: values and gradients are those without the token."""
    xla, seen = jax.nn.dot_product_attention, []

    def in_its_place(query, *args, implementation, **options):
        seen.append((implementation, query.shape[1]))
        return xla(query, *args, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", in_its_place)
    x = jax.random.normal(jax.random.key(0), (3, 5, 8))
    lengths = None if lengths is None else jnp.int32(lengths)
    plain, padded = (
        transformer.Transformer(depth=1, heads=2, mlp_width=8, attention=attention) for attention in ("xla", "cudnn")
    )
    params = jax.jit(plain.init)(jax.random.key(1), x, lengths)

    @jax.jit
    def run(params, x):
        losses = (lambda *args, stack=stack: jnp.square(stack.apply(*args, lengths)).sum() for stack in (plain, padded))
        return [jax.value_and_grad(loss, (0, 1))(params, x) for loss in losses]

    seen.clear()
    expected, found = run(params, x)
    assert seen == [("xla", 5), ("cudnn", 6)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected)


def test_even_numbers_of_tokens_stay_as_they_are():
    x, lengths = jnp.zeros((2, 4, 3)), jnp.int32([1, 4])
    assert transformer.even(x, None) == (x, None)
    assert transformer.even(x, lengths) == (x, lengths)


# --- steps and evaluation ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Datasets of what the recipes take."""
    path = tmp_path_factory.mktemp("data")
    recipes.write_datasets(path)
    return path


def build(folder, recipe, layout="stratified", **encoder):
    """The experiment of a shipped recipe, on all four simulated devices."""
    return experiment.build(recipes.load(folder, recipe, layout, **encoder))


def variables(built):
    """Shapes of the model's variables."""
    batch = next(built.batches(built.config.data.test_split))
    init = functools.partial(built.model.init, train=False, means=built.means)
    found = jax.eval_shape(init, jax.random.key(0), batch["inputs"], batch["present"])
    return {"params": dict(found["params"]), "batch_stats": dict(found.get("batch_stats", {}))}


def trace_step(built, stage):
    """The step that training compiles, traced, and how many arrays its state has."""
    spec, _ = stages.stage_spec(built, stage)
    state = jax.eval_shape(functools.partial(steps.init_state, spec), variables(built))
    batch = next(iter(stages.training_batches(built, stage)))
    rows = sharding.by_rows(built.mesh)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)
    step = sharding.compile_step(steps.make_step(spec, built.means), built.mesh, built.config.parallel)
    return step._jitted.trace(state, batch), len(jax.tree.leaves(state))


def donated(text):
    """How many arguments give their memory to results."""
    return text.count("tf.aliasing_output") + text.count("jax.buffer_donor")


CASES = [
    *((recipe, "unimodal", "random") for recipe in ("av_mnist.py", "food101.py")),
    *(("av_mnist.py", "fusion", layout) for layout in LAYOUTS),
    *(("food101.py", "fusion", layout) for layout in ("stratified", "compacted")),
    *((recipe, "fusion", "stratified") for recipe in RECIPES if recipe not in ("av_mnist.py", "food101.py")),
]


@pytest.mark.parametrize(("recipe", "stage", "layout"), CASES)
def test_steps_of_the_recipes(folder, recipe, stage, layout):
    built = build(folder, recipe, layout)
    traced, leaves = trace_step(built, stage)
    families = {built.config.inputs[name].encoder.name for name in built.modalities}
    for text in lower(traced).values():
        assert not calls(text)
        assert donated(text) == leaves
        assert ("stablehlo.case" in text) == (layout == "compacted")
        assert (BY_KERNEL in convolutions(text)) == bool(families & {*CONVOLUTIONAL, "ast"})
        if recipe == "food101.py":
            # The heads alone multiply in float32.
            in_float32 = re.findall(r"dot_general[^\n]* : (\(tensor<\S*xf32>, tensor<\S*xf32>\) -> \S*)", text)
            assert in_float32 and all(str(CLASSES) in re.findall(r"\d+", shapes) for shapes in in_float32)
            assert text.count("precision = [HIGHEST, HIGHEST]") >= len(in_float32)


@pytest.mark.usefixtures("cudnn_found")
def test_a_step_with_cudnns_attention(folder, monkeypatch):
    """On one device: on several the calls come with the division among them, which is compiling."""
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: sharding.make_mesh(devices=jax.devices()[:1]))
    traced, leaves = trace_step(build(folder, "food101.py", "compacted", attention="cudnn"), "fusion")
    (text,) = lower(traced, platforms=("cuda",)).values()
    assert donated(text) == leaves
    assert set(calls(text)) == {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}


@pytest.mark.parametrize("recipe", ["av_mnist.py", "ave.py:vit_ast", "food101.py"])
@pytest.mark.parametrize("capacities", [(), ((2, 3),)], ids=["all rows", "compacted"])
def test_the_encoders_of_evaluation(folder, recipe, capacities):
    built = build(folder, recipe)
    evaluator = evaluate.Evaluator(built.model, built.mesh, built.means)
    batch = next(built.batches("test"))
    rows = sharding.by_rows(built.mesh)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), batch)
    for text in lower(evaluator._encode.trace(variables(built), batch, capacities)).values():
        assert not calls(text)
        assert ("stablehlo.case" in text) == bool(capacities)
        assert (("bf16", "bf16") in products(text)) == (recipe != "av_mnist.py")


# --- benchmarks -------------------------------------------------------------------------------------------------------


class Full(roofline.Training):
    """Steps that compile, and for which the device has no memory when they run."""

    def __init__(self):
        self.compiled, self._states = {}, {}

    def compile(self, switches):
        self._states[roofline._state_key(switches)] = "donated"
        self.compiled[switches] = "a step"

    def step(self, switches):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 1 TiB")


def test_a_step_that_does_not_fit_is_left_out_with_the_state_that_it_took():
    training = Full()
    assert roofline.attempt(training, roofline.Switches("bfloat16")) == "RESOURCE_EXHAUSTED: Out of memory"
    assert training.compiled == training._states == {}


def test_flops_are_counted_on_the_cpu_which_jax_may_be_told_to_leave_out(monkeypatch):
    def devices(platform):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(UserError, match=r"JAX_PLATFORMS leaves out the CPU.*cuda,cpu"):
        workload.host()
