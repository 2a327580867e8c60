"""ResNet against PyTorch: torchvision's class where it can be imported, Hugging Face's, and one written down again."""

import functools
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.encoders import parity
from tests.encoders.parity import normal, training
from umemma_jax.encoders.resnet import Model, max_pool
from umemma_jax.errors import UserError
from umemma_jax.weights import convert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.encoders.torch_resnet import ResNet, channels_first  # noqa: E402, as it needs torch

TOLERANCE = 2e-5  # on features of order 1
redraw = functools.partial(parity.redraw_convolutions, gain=3)


def apply(model, variables, x):
    return np.asarray(jax.jit(model.apply)(variables, x))


def variables_of(model, x, seed=0):
    """Random variables of a Model without a checkpoint."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if leaf.ndim == 4:
            return rng.normal(size=leaf.shape, scale=leaf[..., 0].size ** -0.5).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.5)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    like = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(draw, jax.tree.map(lambda leaf: np.empty(leaf.shape), like))


def of_order_1(features):
    assert 0.3 < np.abs(features).max() < 20, "features are not of order 1"
    return features


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "depth, form, width, size, pools",
    [
        (18, "imagenet", 64, (64, 64), ("mean", "max")),
        (18, "imagenet", 8, (75, 38), ("mean", "max")),
        (34, "imagenet", 16, (33, 1), ("mean",)),
        (50, "imagenet", 64, (65, 47), ("max",)),
        (101, "imagenet", 8, (40, 40), ("mean",)),
        (152, "imagenet", 8, (32, 50), ("mean",)),
        (20, "cifar", 16, (32, 32), ("mean", "max")),
        (32, "cifar", 8, (31, 17), ("max",)),
        (110, "cifar", 16, (28, 28), ("mean",)),
    ],
)
def test_features_are_those_of_pytorch(depth, form, width, size, pools, tmp_path):
    network = redraw(ResNet(depth, form, width))
    x = normal(3, *size, 3)
    model, variables = parity.load("resnet", parity.save(network.state_dict(), tmp_path / "a.safetensors"), x)
    assert (model.depth, model.form, model.width) == (depth, form, width)
    with torch.no_grad():
        maps = network.maps(channels_first(x))
    expected = {"mean": maps.mean((2, 3)), "max": maps.amax((2, 3))}
    for pool in pools:
        features = of_order_1(apply(model.clone(pool=pool), variables, x))
        assert features.dtype == np.float32
        assert parity.max_difference(features, expected[pool]) < TOLERANCE


@pytest.fixture
def torchvision_models():
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: its compiled operators do not fit this PyTorch
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision.models


SLOW = [pytest.param(depth, marks=pytest.mark.slow) for depth in (101, 152)]


@pytest.mark.parametrize("depth", [18, 34, 50, *SLOW])
def test_features_are_those_of_torchvision_and_an_export_loads_strictly(depth, torchvision_models, tmp_path):
    network = redraw(getattr(torchvision_models, f"resnet{depth}")(weights=None))
    source = parity.save(network.state_dict(), tmp_path / "a.safetensors")
    exported = parity.export_roundtrip("resnet", source, tmp_path)
    x = normal(2, 64, 48, 3)
    model, variables = parity.load("resnet", source, x)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in exported.items()}, strict=True)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        assert parity.max_difference(of_order_1(apply(model, variables, x)), network(channels_first(x))) < TOLERANCE


HUGGING_FACE = {
    18: {"depths": (2, 2, 2, 2), "layer_type": "basic", "embedding_size": 8, "hidden_sizes": (8, 16, 32, 64)},
    50: {"depths": (3, 4, 6, 3), "layer_type": "bottleneck", "embedding_size": 4, "hidden_sizes": (16, 32, 64, 128)},
}


@pytest.mark.parametrize("name", ["ResNetModel", "ResNetForImageClassification"])
@pytest.mark.parametrize("depth", HUGGING_FACE)
def test_hugging_face_weights_give_their_features_and_an_export_loads_strictly(depth, name, tmp_path):
    network = redraw(getattr(transformers, name)(transformers.ResNetConfig(**HUGGING_FACE[depth])))
    network.save_pretrained(tmp_path / "a")
    x = normal(2, 45, 64, 3)
    model, variables = parity.load("resnet", tmp_path / "a", x)
    assert (model.depth, model.form) == (depth, "imagenet")
    encoder = network if name == "ResNetModel" else network.resnet
    with torch.no_grad():
        expected = encoder(channels_first(x)).pooler_output.flatten(1)
    assert parity.max_difference(of_order_1(apply(model, variables, x)), expected) < TOLERANCE

    exported = parity.export_roundtrip("resnet", tmp_path / "a", tmp_path)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in exported.items()}, strict=True)


@pytest.mark.parametrize("depth, form", [(18, "imagenet"), (50, "imagenet"), (20, "cifar")])
def test_an_export_is_the_checkpoint(depth, form, tmp_path):
    network = redraw(ResNet(depth, form, width=8))
    state = network.state_dict()
    exported = parity.export_roundtrip("resnet", parity.save(state, tmp_path / "a.safetensors"), tmp_path)
    assert exported.keys() == state.keys()
    for name, value in state.items():
        assert_array_equal(exported[name], value.numpy())


# --- training ---------------------------------------------------------------------------------------------------------


# Sizes where no ReLU is within rounding of its kink: there PyTorch itself is far off its float64 gradients.
@pytest.mark.parametrize(
    "depth, form, shape",
    [(18, "imagenet", (6, 40, 40, 3)), (50, "imagenet", (6, 40, 40, 3)), (20, "cifar", (4, 16, 16, 3))],
)
def test_training_outputs_statistics_and_gradients_are_those_of_pytorch(depth, form, shape, tmp_path):
    network = redraw(ResNet(depth, form, width=8)).train()
    # Batch statistics amplify rounding from block to block: in float32 PyTorch itself is 2e-4 off its float64 at depth
    # 50, unless the residual branches are small.
    for name, parameter in network.named_parameters():
        if name.endswith("bn3.weight"):
            parameter.data.mul_(0.2)
    x = normal(*shape)
    model, variables = parity.load("resnet", parity.save(network.state_dict(), tmp_path / "a.safetensors"), x)
    expected = network.features(channels_first(x))
    weights = np.cos(np.arange(expected.numel(), dtype=np.float32)).reshape(expected.shape)
    features, statistics, gradients = training(model, variables, x, weights)
    assert parity.max_difference(of_order_1(features), expected) < TOLERANCE

    # The gradients take the parameters' way through the tables.
    (expected * torch.from_numpy(weights)).sum().backward()
    state = network.state_dict() | {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    _, expected = parity.load("resnet", parity.save(state, tmp_path / "b.safetensors"), x)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=TOLERANCE), statistics, expected["batch_stats"])
    parity.assert_gradients_close(gradients, expected["params"])


def test_absent_rows_count_for_nothing():
    model = Model(depth=20, form="cifar", width=4)
    x, weights = normal(6, 16, 16, 3), normal(6, 16, seed=1)
    mask = np.array([True, False, True, True, False, True])
    variables = variables_of(model, x)
    absent = np.where(mask[:, None, None, None], x, 0)
    features, statistics, gradients = training(model, variables, absent, weights * mask[:, None], mask)
    alone, expected_statistics, expected = training(model, variables, x[mask], weights[mask])
    assert np.isfinite(features).all()
    assert_allclose(features[mask], alone, atol=TOLERANCE)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-6), statistics, expected_statistics)
    parity.assert_gradients_close(gradients, expected)


def test_remat_changes_nothing():
    model = Model(depth=20, form="cifar", width=4)
    x, weights = normal(4, 16, 16, 3), normal(4, 16, seed=1)
    variables = variables_of(model, x)
    features, statistics, gradients = training(model.clone(remat=True), variables, x, weights)
    expected_features, expected_statistics, expected = training(model, variables, x, weights)
    assert_allclose(features, expected_features, atol=1e-6)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-6), statistics, expected_statistics)
    parity.assert_gradients_close(gradients, expected)


def test_batch_statistics_are_those_of_all_devices_under_pmap():
    x = normal(8, 16, 16, 3)
    model = Model(depth=20, form="cifar", width=4)
    variables = variables_of(model, x)

    def run(model, x):
        return model.apply(variables, x, None, True, mutable=["batch_stats"])

    expected, statistics = jax.jit(lambda x: run(model, x))(x)
    spread = jax.pmap(lambda x: run(model.clone(axis_name="data"), x), axis_name="data", devices=jax.devices()[:4])
    features, spread_statistics = spread(x.reshape(4, 2, *x.shape[1:]))
    assert_allclose(features.reshape(8, -1), expected, atol=TOLERANCE)
    jax.tree.map(lambda a, e: assert_allclose(a[0], e, atol=1e-6), spread_statistics, statistics)


# --- inputs and fields ------------------------------------------------------------------------------------------------


def test_videos_give_the_mean_over_their_frames_and_spectrograms_are_images_of_one_channel():
    model = Model(depth=20, form="cifar", width=4)
    x = normal(2, 3, 16, 16, 1)
    variables = variables_of(model, x)
    frames = apply(model, variables, x.reshape(6, 16, 16, 1))
    assert_allclose(apply(model, variables, x), frames.reshape(2, 3, -1).mean(axis=1), atol=1e-6)
    assert_allclose(apply(model, variables, x[:, 0, :, :, 0]), frames[::3], atol=1e-6)
    mask = np.array([True, False])
    _, statistics, _ = training(model, variables, x, 1.0, mask)
    _, expected, _ = training(model, variables, x[0], 1.0)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-6), statistics, expected)


@pytest.mark.parametrize("first_layer", ["average", "tile"])
@pytest.mark.parametrize("channels", [1, 5])
def test_the_first_layer_adapts_to_other_channels(first_layer, channels, tmp_path):
    network = redraw(ResNet(18, width=8))
    source = parity.save(network.state_dict(), tmp_path / "a.safetensors")
    gray = normal(2, 40, 40, 1)
    if first_layer == "tile" and channels != 1:
        with torch.no_grad():  # such that every channel counts as much, and equal channels show it
            network.conv1.weight.copy_(network.conv1.weight.mean(1, keepdim=True).expand(-1, 3, -1, -1))
        source = parity.save(network.state_dict(), tmp_path / "b.safetensors")
    x = gray.repeat(channels, axis=-1)
    model, variables = parity.load("resnet", source, x, first_layer)
    kernel = variables["params"]["stem"]["kernel"]
    assert kernel.shape == (7, 7, channels, 8)
    if first_layer == "tile" and channels == 1:
        expected = 3 * network.conv1.weight[:, :1].detach().numpy().transpose(2, 3, 1, 0)
        assert_allclose(kernel, expected, rtol=1e-6)
        return
    with torch.no_grad():
        expected = network.features(channels_first(gray.repeat(3, axis=-1)))
    assert parity.max_difference(of_order_1(apply(model, variables, x)), expected) < TOLERANCE


def test_bfloat16_is_close_and_its_features_are_float32(tmp_path):
    network = redraw(ResNet(18, width=16))
    x = normal(4, 64, 64, 3)
    source = parity.save(network.state_dict(), tmp_path / "a.safetensors")
    model, variables = parity.load("resnet", source, x, dtype="bfloat16")
    features = apply(model, variables, x)
    with torch.no_grad():
        expected = network.features(channels_first(x)).numpy()
    parity.assert_close_in_bfloat16(features, expected, share=0.03)
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(like)} == {"float32"}


@pytest.mark.parametrize(
    "fields, shape, message",
    [
        ({"depth": 20}, (1, 32, 32, 3), "encoder resnet: depth 20, the imagenet form has [18, 34, 50, 101, 152]"),
        ({"depth": 50, "form": "cifar", "width": 8}, (1, 8, 8, 3), None),
        ({"depth": 21, "form": "cifar"}, (1, 8, 8, 3), "encoder resnet: depth 21, the cifar form has 6n + 2"),
        ({"form": "mnist"}, (1, 8, 8, 3), "encoder resnet: form 'mnist' is neither imagenet nor cifar"),
        ({"pool": "last"}, (1, 8, 8, 3), "encoder resnet: pool 'last' is neither mean nor max"),
        ({}, (1, 8), "encoder resnet: takes [B, T, F], [B, H, W, C] or [B, T, H, W, C], not (1, 8)"),
    ],
)
def test_what_the_fields_cannot_be_is_the_users_mistake(fields, shape, message):
    def build():
        return jax.eval_shape(lambda x: Model(**fields).init_with_output(jax.random.key(0), x)[0], np.zeros(shape))

    if message is None:
        assert build().shape == (1, 32)
        return
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck = True, only False can be loaded"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage = True, only False can be loaded"),
        ({"hidden_act": "gelu"}, "hidden_act = gelu, only relu can be loaded"),
        ({"depths": (3, 4, 6, 2)}, r"stages of \(3, 4, 6, 2\) bottleneck blocks, as no known depth has"),
        ({"hidden_sizes": (16, 32, 48, 64)}, r"stages are \(4, 8, 12, 16\) wide after a stem of 4"),
    ],
)
def test_other_variants_of_hugging_face_are_refused(change, message, tmp_path):
    config = transformers.ResNetConfig(**{**HUGGING_FACE[50], **change})
    transformers.ResNetModel(config).save_pretrained(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["model_type"] == "resnet"
    with pytest.raises(UserError, match=message) as caught:
        parity.load("resnet", tmp_path / "a", normal(1, 32, 32, 3))
    assert "\n" not in str(caught.value)


TIMMS_RESNET = {
    "its own": ({"architecture": "resnet18"}, ""),
    "with a tag": ({"architecture": "resnet18.a1_in1k", "global_pool": "avg", "model_args": None}, ""),
    "max": ({"architecture": "resnet18", "model_args": {"global_pool": "max"}}, ""),
    # The same tensors, and pools between them.
    "aa": ({"architecture": "resnetaa50"}, "says architecture 'resnetaa50', which may compute something else"),
    "blur": ({"architecture": "resnetblur18"}, "says architecture 'resnetblur18'"),
    "stride": ({"architecture": "resnet18", "model_args": {"output_stride": 8}}, "says model_args output_stride"),
    "no pool": ({"architecture": "resnet18", "global_pool": ""}, "global_pool '' is not supported"),
    "of another": ({"architecture": "resnet34"}, "says resnet34, which these tensors are not"),
    "Hugging Face's": ({"model_type": "resnet"}, "says model_type 'resnet'"),
}


@pytest.mark.parametrize("config, message", TIMMS_RESNET.values(), ids=TIMMS_RESNET)
def test_timms_names_tell_what_tensors_do_not(config, message, tmp_path):
    state = ResNet(18, channels=1).state_dict()
    parity.save(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    if not message:
        fields = convert.convert("resnet", tmp_path, tmp_path / "out").fields
        assert (fields["depth"], fields["pool"]) == (18, "max" if config.get("model_args") else "mean")
        return
    with pytest.raises(UserError) as caught:
        convert.convert("resnet", tmp_path, tmp_path / "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("height, width", [(8, 8), (7, 10), (1, 5)])
def test_max_pool_and_its_gradient_are_those_of_pytorch(height, width):
    # Small integers: ties in most windows.
    x = np.random.default_rng(0).integers(-2, 3, (2, height, width, 3)).astype(np.float32)
    theirs = channels_first(x).requires_grad_()
    expected = torch.nn.functional.max_pool2d(theirs, 3, 2, 1)
    weights = normal(*expected.shape)
    expected.backward(torch.from_numpy(weights))
    y, pullback = jax.vjp(jax.jit(max_pool), x)
    assert_array_equal(y, expected.detach().numpy().transpose(0, 2, 3, 1))
    assert_array_equal(y, nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))))
    (gradient,) = pullback(weights.transpose(0, 2, 3, 1))
    assert_allclose(gradient, theirs.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6)
