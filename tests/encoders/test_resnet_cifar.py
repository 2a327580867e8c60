"""Published CIFAR-10 weights classify test images as they do in PyTorch: every fifth, or all with --every-image."""

import functools
import io
import zipfile

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from tests.encoders import parity

torch = pytest.importorskip("torch")

from tests.encoders.torch_resnet import ResNet, channels_first  # noqa: E402, as it needs torch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@functools.cache
def cifar10_test(path, step):
    """Normalised images [10000 / step, 32, 32, 3] and labels, of every `step`th file."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::step]
        images = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])
    labels = np.array([CLASSES.index(name.split("/")[-2]) for name in names])
    return (images / np.float32(255) - np.float32(MEAN)) / np.float32(STD), labels


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "file, depth, accuracy", [("resnet20-12fca82f.th", 20, 0.81), ("resnet32-d509ac18.th", 32, 0.825)]
)
def test_real_weights_classify_images_as_pytorch_does(file, depth, accuracy, shared_data, tmp_path, request):
    every = request.config.getoption("--every-image")
    images, labels = cifar10_test(shared_data / "cifar10_test" / "test.zip", step=1 if every else 5)
    source = shared_data / "resnet_cifar10_torch" / file
    model, variables = parity.load("resnet", source, images[:2])
    assert (model.depth, model.form, model.width) == (depth, "cifar", 16)
    state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
    network = ResNet(depth, "cifar", width=16).eval()
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    head = network.linear.weight.detach().numpy().T, network.linear.bias.detach().numpy()

    encode = jax.jit(model.apply)
    ours, theirs, difference = [], [], 0.0
    for start in range(0, len(images), 500):
        batch = images[start : start + 500]
        features = np.asarray(encode(variables, batch))
        with torch.no_grad():
            expected = network.features(channels_first(batch))
            theirs.append(network.linear(expected).argmax(1).numpy())
        difference = max(difference, parity.max_difference(features, expected))
        ours.append((features @ head[0] + head[1]).argmax(1))
    ours, theirs = np.concatenate(ours), np.concatenate(theirs)
    assert len(ours) == (10_000 if every else 2_000)
    assert_array_equal(ours, theirs)
    assert difference < 2e-5
    print(f"{file}: accuracy {np.mean(ours == labels):.4f}, max |difference| of features {difference:.1e}")
    assert abs(np.mean(ours == labels) - accuracy) < (
        0.005 if every else 0.02
    )  # JPEG decoders differ in a few images; a sample's deviation is 0.009

    exported = parity.export_roundtrip("resnet", source, tmp_path)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in exported.items()}, strict=True)
    assert exported.keys() == {name.removeprefix("module.") for name in state}
    for name, value in state.items():
        assert_array_equal(exported[name.removeprefix("module.")], value.numpy())
