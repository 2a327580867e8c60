"""LeNet against the same network in PyTorch, and its shapes."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.encoders import parity
from tests.encoders.parity import normal
from umemma_jax.encoders.lenet import Model
from umemma_jax.errors import UserError


@pytest.mark.parametrize(
    "shape, channels, layers, features",
    [((28, 28, 1), 6, 3, 48), ((112, 112), 6, 5, 192), ((32, 40, 3), 4, 2, 16 * 4 * 5)],
)
def test_features_have_the_size_of_multibench(shape, channels, layers, features):
    model = Model(channels=channels, layers=layers)
    output, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), np.zeros((2, *shape)))
    assert output.shape == (2, features)
    assert output.dtype == np.float32


def test_too_many_layers_for_the_input_are_the_users_mistake():
    with pytest.raises(UserError, match="8x8 inputs cannot be halved 4 times, lower `layers`"):
        Model(layers=3).init(jax.random.key(0), np.zeros((1, 8, 8, 1)))


def torch_lenet(torch, channels, layers):
    """MultiBench's LeNet, written down again from its description."""

    def stage(before, after, size):
        convolution = torch.nn.Conv2d(before, after, size, padding=size // 2, bias=False)
        return [convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]

    stages = stage(1, channels, 5)
    for layer in range(layers):
        stages += stage(channels << layer, channels << (layer + 1), 3)
    return torch.nn.Sequential(*stages)


def from_torch(network):
    """Flax variables with the weights of `network`."""
    params, statistics = {}, {}
    modules = list(network)
    for layer in range(len(modules) // 4):
        convolution, norm = modules[4 * layer : 4 * layer + 2]
        kernel = convolution.weight.detach().numpy().transpose(2, 3, 1, 0)
        scale, bias = norm.weight.detach().numpy().copy(), norm.bias.detach().numpy().copy()
        mean, var = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
        params[f"layer{layer}"] = {"kernel": kernel.copy(), "norm": {"scale": scale, "bias": bias}}
        statistics[f"layer{layer}"] = {"norm": {"mean": mean, "var": var}}
    return {"params": params, "batch_stats": statistics}


@pytest.mark.parametrize("train", [True, False])
def test_forward_gradients_and_running_statistics_are_those_of_pytorch(train):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch_lenet(torch, channels=6, layers=3)
    for norm in list(network)[1::4]:  # not their initial values, scales of both signs
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    network.train(train)
    variables = from_torch(network)
    x, weights = normal(8, 28, 28, 1), normal(8, 48, seed=1)

    def loss(params):
        y, updates = Model(6, 3).apply(
            {**variables, "params": params}, x, train=train, mutable=["batch_stats"] if train else []
        )
        return (y * weights).sum(), (y, updates)

    gradients, (y, updates) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    # PyTorch flattens [B, C, H, W], we [B, H, W, C]: 1x1 at the end, so the same.
    expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).flatten(1)
    (expected * torch.from_numpy(weights)).sum().backward()
    assert_allclose(y, expected.detach().numpy(), atol=1e-4 if train else 1e-5, rtol=1e-5)
    after = from_torch(network)
    if train:
        jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-5), updates["batch_stats"], after["batch_stats"])
    for parameter in network.parameters():
        parameter.data = parameter.grad
    expected = from_torch(network)["params"]
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-5 * np.abs(e).max()), gradients, expected)


def test_padding_rows_change_nothing():
    parity.assert_padding_rows_change_nothing(Model(channels=4, layers=2), normal(6, 28, 28, 1))


def test_videos_give_the_mean_over_their_frames():
    model, video = Model(channels=4, layers=2), normal(2, 3, 16, 24, 3)
    variables = parity.random_variables(model, video)
    frames = model.apply(variables, video.reshape(6, 16, 24, 3))
    assert_allclose(model.apply(variables, video), frames.reshape(2, 3, -1).mean(axis=1), atol=1e-5)
    with pytest.raises(UserError, match="16x24 inputs cannot be halved 5 times"):
        Model(layers=4).init(jax.random.key(0), video)


def test_padding_videos_change_nothing():
    parity.assert_padding_rows_change_nothing(Model(channels=4, layers=2), normal(6, 2, 16, 16, 1))
