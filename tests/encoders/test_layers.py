"""Layers against Flax's and XLA's own, and the promises about masks, devices and ties."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.encoders.parity import normal
from umemma_jax.encoders.layers import BatchNorm, ConvNormPool, conv_by_windows, convolve, max_pool_2x2


def conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def shares(tree):
    """Leaves divided by their largest value, so that one tolerance serves all."""
    return jax.tree.map(lambda x: np.asarray(x) / max(np.abs(x).max(), 1e-30), tree)


def assert_trees_close(actual, expected, atol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=atol, rtol=0), shares(actual), shares(expected))


# --- max-pool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(4, 6), (5, 4), (7, 3), (2, 2)])
def test_max_pool_and_its_gradient_are_those_of_flax(height, width):
    x = normal(3, height, width, 2)
    weights = normal(3, height // 2, width // 2, 2, seed=1)
    ours = jax.jit(jax.value_and_grad(lambda x: (max_pool_2x2(x) * weights).sum()))(x)
    flax = jax.jit(jax.value_and_grad(lambda x: (nn.max_pool(x, (2, 2), (2, 2)) * weights).sum()))(x)
    assert_allclose(ours[0], flax[0], rtol=1e-6)
    assert_allclose(ours[1], flax[1])


def test_of_equal_values_in_a_window_the_first_gets_the_gradient():
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(jnp.ones((1, 2, 2, 1)))
    assert gradient.ravel().tolist() == [1, 0, 0, 0]


# --- convolution ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "padding"), [(3, 1), (7, 3), (3, 0), (5, 2)])
@pytest.mark.parametrize("shape", [(2, 9, 12, 3), (2, 11, 3)])
def test_convolution_and_its_gradients_are_those_of_xla_in_a_branch_too(shape, size, padding, stride):
    spatial = len(shape) - 2
    keys = jax.random.split(jax.random.key(size), 3)
    x = jax.random.normal(keys[0], shape)
    kernel = jax.random.normal(keys[1], (*(size,) * spatial, 3, 4))
    names = ("NHWC", "HWIO", "NHWC") if spatial == 2 else ("NWC", "WIO", "NWC")

    def plain(x, kernel):
        pads = [(padding, padding)] * spatial
        return jax.lax.conv_general_dilated(x, kernel, (stride,) * spatial, pads, dimension_numbers=names)

    weights = jax.random.normal(keys[2], plain(x, kernel).shape)

    def with_gradients(function):
        return jax.value_and_grad(lambda x, kernel: (function(x, kernel) * weights).sum(), argnums=(0, 1))

    ours = with_gradients(lambda x, kernel: convolve(x, kernel, stride, padding))
    in_branch = jax.jit(lambda flag: jax.lax.cond(flag, ours, lambda *a: (jnp.sum(a[0]), a), x, kernel))
    expected = with_gradients(plain)(x, kernel)
    for found in (ours(x, kernel), in_branch(True)):
        assert_trees_close(found, expected, atol=1e-4)


# --- convolution by windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("height, width, channels", [(8, 12, 1), (2, 4, 3)])
def test_convolution_by_windows_and_its_gradients_are_those_of_xla(size, height, width, channels):
    x, kernel = normal(3, height, width, channels), normal(size, size, channels, 4, seed=1)
    weights = normal(3, height, width, 4, seed=2)

    def by_windows(x, kernel):
        y = conv_by_windows(x, kernel)  # [4, O, rows, columns, B]
        y = y.reshape(2, 2, *y.shape[1:]).transpose(5, 3, 0, 4, 1, 2)
        return (y.reshape(3, height, width, 4) * weights).sum()

    def plain(x, kernel):
        return (conv(x, kernel) * weights).sum()

    ours = jax.jit(jax.value_and_grad(by_windows, argnums=(0, 1)))(x, kernel)
    xla = jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(x, kernel)
    assert_trees_close(ours, xla)


@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 6, 3)], ids=["by windows", "odd size"])
def test_a_batch_that_is_spread_over_devices_stays_where_it_is(shape):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    layer = ConvNormPool(4)
    x, mask = jax.device_put((normal(16, *shape), np.arange(16) < 13), spread)
    variables = jax.jit(layer.init)(jax.random.key(0), x)

    def loss(params, x):
        y, _ = layer.apply({**variables, "params": params}, x, mask, True, mutable=["batch_stats"])
        return jnp.square(y).sum()

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables["params"], x).compile().as_text()
    assert "all-reduce" in program  # of sums only
    assert "all-gather" not in program
    assert "all-to-all" not in program
    assert "collective-permute" not in program


# --- batch norm -------------------------------------------------------------------------------------------------------


def test_batch_norm_is_that_of_flax():
    x = normal(6, 4, 5, 3) * 2 + 1
    ours, flax = BatchNorm(3), nn.BatchNorm(momentum=0.9)
    variables = jax.jit(ours.init)(jax.random.key(0), x)
    y, updates = ours.apply(variables, x, train=True, mutable=["batch_stats"])
    expected, flax_updates = flax.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    assert_allclose(y, expected, atol=1e-5)
    assert_allclose(updates["batch_stats"]["mean"], flax_updates["batch_stats"]["mean"], atol=1e-6)
    # Flax keeps the biased variance, PyTorch and we the unbiased one.
    unbiased = 0.9 + 0.1 * x.var(axis=(0, 1, 2), ddof=1)
    assert_allclose(updates["batch_stats"]["var"], unbiased, rtol=1e-5)
    assert_allclose(ours.apply(variables, x), flax.apply(variables, x, use_running_average=True), atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 6, 3)], ids=["by windows", "odd size"])
def test_a_large_mean_does_not_cancel(shape, masked):
    """Values with a mean of 100 deviations: sums of squares would lose four of float32's seven digits."""
    x = (normal(32, *shape) + 100).astype(np.float32)
    mask = np.arange(32) % 3 > 0 if masked else np.ones(32, bool)
    kernel = np.diag([1.0, -1.0, 2.0])[None, None].astype(np.float32)
    expected = x[mask].astype(np.float64).var(axis=(0, 1, 2), ddof=1) * np.square(np.diagonal(kernel[0, 0]))
    start = {"mean": np.zeros(3, np.float32), "var": np.zeros(3, np.float32)}
    affine = {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}

    norm = {"params": affine, "batch_stats": start}
    y, updates = BatchNorm(3, momentum=0.0).apply(norm, x @ kernel[0, 0], mask, True, mutable=["batch_stats"])
    assert_allclose(updates["batch_stats"]["var"], expected, rtol=1e-5)
    assert_allclose(y[mask].std(axis=(0, 1, 2)), 1, rtol=1e-5)

    block = {"params": {"kernel": kernel, "norm": affine}, "batch_stats": {"norm": start}}
    _, updates = ConvNormPool(3, kernel_size=1).apply(block, x, mask, True, mutable=["batch_stats"])
    assert_allclose(updates["batch_stats"]["norm"]["var"] / 0.1, expected, rtol=1e-5)


def test_a_large_mean_does_not_cancel_on_several_devices():
    x = (normal(16, 5, 3) + 100).astype(np.float32)
    mask = np.arange(16) % 3 > 0
    variables = BatchNorm(3).init(jax.random.key(0), x)

    def variance(x, mask):
        layer = BatchNorm(3, momentum=0.0, axis_name="data")
        return layer.apply(variables, x, mask, True, mutable=["batch_stats"])[1]["batch_stats"]["var"]

    found = jax.pmap(variance, axis_name="data")(x.reshape(4, 4, 5, 3), mask.reshape(4, 4))
    expected = x[mask].astype(np.float64).var(axis=(0, 1), ddof=1)
    assert_allclose(found, np.tile(expected, (4, 1)), rtol=1e-5)


LAYERS = {
    "norm": (BatchNorm(4), (4,)),
    "by windows": (ConvNormPool(4), (8, 6, 3)),
    "odd size": (ConvNormPool(4), (7, 6, 3)),
    "many channels": (ConvNormPool(4), (4, 4, 20)),
}


def fresh(layer, x):
    """Variables with scales of both signs and running statistics that are not the initial ones."""
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda v: (v + rng.uniform(-2.5, 2.5, v.shape)).astype(np.float32), variables)
    return {**variables, "batch_stats": jax.tree.map(np.abs, variables["batch_stats"])}


def forward_and_gradients(layer, variables, x, mask=None):
    """Kept outputs, running statistics, and gradients of a sum over the kept rows."""
    kept = np.ones(len(x), bool) if mask is None else mask

    def loss(params, x):
        y, updates = layer.apply({**variables, "params": params}, x, mask, True, mutable=["batch_stats"])
        y = y[np.flatnonzero(kept)]
        return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), (y, updates)

    gradients, outputs = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
    return outputs, (gradients[0], gradients[1][np.flatnonzero(kept)])


@pytest.mark.parametrize("layer, shape", LAYERS.values(), ids=LAYERS)
def test_masked_rows_count_for_nothing(layer, shape):
    x = normal(6, *shape)
    mask = np.array([True, False, True, True, False, True])
    variables = fresh(layer, x)
    garbage = np.where(mask.reshape(-1, *[1] * len(shape)), x, 1e4)
    masked = forward_and_gradients(layer, variables, garbage, mask)
    alone = forward_and_gradients(layer, variables, x[mask])
    assert_trees_close(masked, alone)


@pytest.mark.parametrize("layer, shape", LAYERS.values(), ids=LAYERS)
def test_a_batch_without_any_counting_row_keeps_the_statistics_and_stays_finite(layer, shape):
    x, mask = normal(4, *shape), np.zeros(4, bool)
    variables = jax.jit(layer.init)(jax.random.key(0), x)

    def loss(params):
        y, updates = layer.apply({**variables, "params": params}, x, mask, True, mutable=["batch_stats"])
        return y.sum(), (y, updates["batch_stats"])

    gradients, (y, statistics) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    jax.tree.map(assert_allclose, statistics, variables["batch_stats"])


@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 6, 3)], ids=["by windows", "odd size"])
def test_under_pmap_statistics_and_gradients_are_those_of_the_global_batch(shape):
    devices = 4
    x = normal(4 * devices, *shape)
    mask = np.random.default_rng(1).random(4 * devices) < 0.6
    mask[:4] = False  # one device has no counting row at all
    layer, spread = ConvNormPool(4), ConvNormPool(4, axis_name="data")
    variables = fresh(layer, x)
    weights = normal(len(x), shape[0] // 2, shape[1] // 2, 4, seed=2) * mask[:, None, None, None]

    def loss(layer, params, x, mask, weights):
        y, updates = layer.apply({**variables, "params": params}, x, mask, True, mutable=["batch_stats"])
        return (y * weights).sum(), updates["batch_stats"]

    def on_one_device(params, x, mask, weights):
        gradients, statistics = jax.grad(lambda p: loss(spread, p, x, mask, weights), has_aux=True)(params)
        return jax.lax.psum(gradients, "data"), statistics

    def split(x):
        return x.reshape(devices, -1, *x.shape[1:])

    parallel = jax.pmap(on_one_device, axis_name="data", in_axes=(None, 0, 0, 0))
    actual = parallel(variables["params"], split(x), split(mask), split(weights))
    expected = jax.jit(jax.grad(lambda p: loss(layer, p, x, mask, weights), has_aux=True))(variables["params"])
    for device in range(devices):
        assert_trees_close(jax.tree.map(lambda v: v[device], actual), expected)  # noqa: B023


# --- the block --------------------------------------------------------------------------------------------------------


def block_in_plain_order(variables, x, train):
    """Convolution, batch norm, ReLU, max-pool: the textbook's order, with Flax's layers."""
    params, statistics = variables["params"], variables["batch_stats"]
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.9)
    variables = {"params": params["norm"], "batch_stats": statistics["norm"]}
    y = norm.apply(variables, conv(x, params["kernel"]), mutable=["batch_stats"])[0]
    return nn.max_pool(nn.relu(y), (2, 2), (2, 2))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(8, 6, 1), (8, 6, 12), (7, 5, 3), (4, 4, 20)])
def test_the_block_is_convolution_norm_relu_and_pool(shape, train):
    x = normal(5, *shape)
    layer = ConvNormPool(6, kernel_size=5)
    variables = fresh(layer, x)
    assert (variables["params"]["norm"]["scale"] < 0).any()

    def ours(params, x):
        y = layer.apply({**variables, "params": params}, x, None, train, mutable=["batch_stats"])[0]
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum(), y

    def textbook(params, x):
        y = block_in_plain_order({**variables, "params": params}, x, train)
        return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum(), y

    actual = jax.jit(jax.grad(ours, argnums=(0, 1), has_aux=True))(variables["params"], x)
    expected = jax.jit(jax.grad(textbook, argnums=(0, 1), has_aux=True))(variables["params"], x)
    assert_trees_close(actual, expected, atol=2e-5)


def test_bfloat16_convolutions_stay_near_float32():
    x = normal(4, 8, 8, 3)
    layer = ConvNormPool(6)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    y = jax.jit(layer.apply)(variables, x)
    half = jax.jit(ConvNormPool(6, dtype="bfloat16").apply)(variables, x)
    assert half.dtype == jnp.float32
    assert_allclose(half, y, atol=0.05)
