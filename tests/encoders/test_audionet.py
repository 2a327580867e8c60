"""AudioNet against PyTorch: features, statistics, gradients, export; absent rows; bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.encoders import parity
from tests.encoders.parity import normal, training
from umemma_jax.encoders.audionet import Model
from umemma_jax.errors import UserError

torch = pytest.importorskip("torch")

from tests.encoders.torch_audionet import AudioNet  # noqa: E402, as it needs torch

TOLERANCE = 2e-5  # on features of order 1
NARROW = (4, 8, 12, 16)

redraw = functools.partial(parity.redraw_convolutions, gain=5)


def load(network, x, tmp_path, **given):
    return parity.load("audionet", parity.save(network.state_dict(), tmp_path / "a.safetensors"), x, **given)


@pytest.mark.parametrize(
    "channels, samples",
    [
        ((64, 128, 256, 512), 65_535),
        (NARROW, 4096),
        (NARROW, 4095),
        (NARROW, 9_001),
        (NARROW[:2], 777),
        (NARROW[:1], 5),
    ],
)
def test_features_are_those_of_pytorch_with_either_pool(channels, samples, tmp_path):
    network = redraw(AudioNet(channels))
    x = normal(2, samples)
    model, variables = load(network, x, tmp_path)
    assert tuple(model.channels) == channels
    with torch.no_grad():
        steps = network.steps(torch.from_numpy(x))
    for pool, expected in {"max": steps.amax(1), "mean": steps.mean(1)}.items():
        features = jax.jit(model.clone(pool=pool).apply)(variables, x)
        assert features.dtype == np.float32
        assert 0.3 < np.abs(features).max() < 10, "features are not of order 1"
        assert parity.max_difference(features, expected) < TOLERANCE


def test_the_original_keeps_the_maximum_of_16_positions():
    assert Model().pool == "max"
    assert AudioNet().steps(torch.zeros(1, 65_535)).shape == (1, 16, 512)


def test_an_export_is_the_checkpoint_and_loads_strictly(tmp_path):
    network = redraw(AudioNet(NARROW))
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    exported = parity.export_roundtrip("audionet", parity.save(state, tmp_path / "a.safetensors"), tmp_path)
    for name, value in network.state_dict().items():
        assert_array_equal(exported[name], value.numpy())
    network.load_state_dict({name: torch.from_numpy(x) for name, x in exported.items()}, strict=True)


def test_training_outputs_statistics_and_gradients_are_those_of_pytorch(tmp_path):
    network = redraw(AudioNet(NARROW)).train()
    x, weights = normal(4, 8000), normal(4, NARROW[-1], seed=1)
    model, variables = load(network, x, tmp_path)
    features, statistics, gradients = training(model, variables, x, weights)

    expected = network(torch.from_numpy(x))
    (expected * torch.from_numpy(weights)).sum().backward()
    assert parity.max_difference(features, expected) < TOLERANCE

    # The gradients take the parameters' way through the tables.
    state = network.state_dict() | {name: parameter.grad for name, parameter in network.named_parameters()}
    _, expected = load_state(state, x, tmp_path)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=TOLERANCE), statistics, expected["batch_stats"])
    for index in range(2 * len(NARROW)):
        # A bias before a norm changes nothing: what is left of its gradient is rounding.
        scale = np.abs(expected["params"][f"conv{index}"]["kernel"]).max()
        for ours in (gradients, expected["params"]):
            assert np.abs(ours[f"conv{index}"].pop("bias")).max() < 1e-4 * scale
    parity.assert_gradients_close(gradients, expected["params"])


def load_state(state, x, tmp_path):
    return parity.load("audionet", parity.save(state, tmp_path / "state.safetensors"), x)


def test_absent_rows_count_for_nothing(tmp_path):
    x = normal(6, 3000)
    mask = np.array([True, False, True, True, False, True])
    model, variables = load(redraw(AudioNet(NARROW[:3])), x, tmp_path)
    weights = normal(6, NARROW[2], seed=1) * mask[:, None]
    absent = x * mask[:, None]
    features, statistics, gradients = training(model, variables, absent, weights, mask)
    alone, expected_statistics, expected = training(model, variables, x[mask], weights[mask])
    assert np.isfinite(features).all()
    assert_allclose(features[mask], alone, atol=TOLERANCE)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-6), statistics, expected_statistics)
    for index in range(6):
        gradients[f"conv{index}"].pop("bias"), expected[f"conv{index}"].pop("bias")
    parity.assert_gradients_close(gradients, expected)


def test_bfloat16_is_close_and_its_features_are_float32(tmp_path):
    network = redraw(AudioNet(NARROW))
    x = normal(4, 8000)
    model, variables = load(network, x, tmp_path, dtype="bfloat16")
    features = np.asarray(jax.jit(model.apply)(variables, x))
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    parity.assert_close_in_bfloat16(features, expected)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), x))} == {
        "float32"
    }


@pytest.mark.parametrize(
    "fields, shape, message",
    [
        ({}, (2, 2340), "encoder audionet: 2340 samples are too few for 4 blocks"),
        ({}, (2, 8, 80), "encoder audionet: takes waveforms [B, S], not (2, 8, 80)"),
        ({"pool": "last"}, (2, 65_535), "encoder audionet: pool 'last' is neither mean nor max"),
    ],
)
def test_what_the_fields_cannot_take_is_the_users_mistake(fields, shape, message):
    with pytest.raises(UserError) as caught:
        jax.eval_shape(lambda x: Model(**fields).init(jax.random.key(0), x), jnp.zeros(shape))
    assert str(caught.value) == message


def test_as_many_samples_as_four_blocks_need():
    model = Model(channels=NARROW)
    output = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 2341)))
    assert output.shape == (2, 16)


def test_a_two_dimensional_network_of_the_same_names_is_refused(tmp_path):
    # VGG with batch norm numbers its modules alike.
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 4, 3), torch.nn.BatchNorm2d(4))
    state = {f"features.{name}": value for name, value in network.state_dict().items()}
    with pytest.raises(UserError, match="encoder audionet: the checkpoint's convolutions are not one-dimensional"):
        load_state(state, normal(2, 5000), tmp_path)
