import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests import own_family
from tests.weights.test_convert import FAMILY, STATE, save
from umemma_jax import checksums
from umemma_jax.data.unfinished import appearing
from umemma_jax.errors import UserError
from umemma_jax.weights import convert, files, model_card, pretrained


def like(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)


def test_a_model_with_a_checkpoints_weights_computes_the_same(tmp_path):
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    model, x = own_family.Model(**converted.card.fields), jnp.ones((2, 4))
    variables = converted.fit(like(model, x))
    hidden = np.maximum(np.ones((2, 4)) @ STATE["0.weight"].T + STATE["0.bias"], 0)
    expected = hidden @ STATE["2.weight"].T + STATE["2.bias"]
    np.testing.assert_allclose(model.apply(variables, x), expected, atol=1e-5)


def test_conversion_on_the_fly_is_cached_until_the_source_changes(tmp_path, monkeypatch):
    conversions = []
    original = convert.convert
    monkeypatch.setattr(convert, "convert", lambda *args: conversions.append(args) or original(*args))
    source, cache = save(tmp_path / "source"), tmp_path / "cache"
    first = pretrained.obtain(FAMILY, source, {}, cache)
    again = pretrained.obtain(FAMILY, source, {"width": 6}, cache)  # the checkpoint decides the width itself
    assert first.folder == again.folder and len(conversions) == 1
    save(source, {**STATE, "2.bias": STATE["2.bias"] + 1})
    changed = pretrained.obtain(FAMILY, source, {}, cache)
    assert changed.folder != first.folder and len(conversions) == 2
    assert not np.array_equal(changed.arrays["params/out/bias"], first.arrays["params/out/bias"])


@pytest.mark.parametrize("name", [model_card.PARAMETERS, model_card.CARD, checksums.FILE_NAME])
def test_what_is_damaged_is_made_again_in_the_cache_and_refused_elsewhere(name, tmp_path):
    source = save(tmp_path / "source")
    convert.convert(FAMILY, source, tmp_path / "ours")
    cached = pretrained.obtain(FAMILY, source, {}, tmp_path / "cache")
    expected = cached.arrays
    for folder in (cached.folder, tmp_path / "ours"):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    again = pretrained.obtain(FAMILY, source, {}, tmp_path / "cache")
    assert again.folder == cached.folder
    for path, array in again.arrays.items():
        np.testing.assert_array_equal(array, expected[path])
    with pytest.raises(UserError, match=rf"ours.*{name}.*: convert the checkpoint again"):
        pretrained.obtain(FAMILY, tmp_path / "ours", {}, tmp_path / "cache")


def test_a_mended_table_is_another_conversion(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    family = package / "family_to_mend.py"
    family.write_text("from tests.own_family import FORMATS, Model\n")
    monkeypatch.syspath_prepend(tmp_path)
    source, cache = save(tmp_path / "source"), tmp_path / "cache"
    first = pretrained.obtain("package.family_to_mend", source, {}, cache)
    family.write_text(family.read_text() + "# mended\n")
    assert pretrained.obtain("package.family_to_mend", source, {}, cache).folder != first.folder


def test_what_a_killed_conversion_left_in_the_cache_is_removed_and_not_that_of_a_live_one(tmp_path):
    cache = tmp_path / "cache"
    killed = """
import os, pathlib, signal, sys
from umemma_jax.data.unfinished import appearing
with appearing(pathlib.Path(sys.argv[1]) / "x") as partial:
    partial.mkdir()
    (partial / "parameters.safetensors").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, str(cache)], check=False)
    assert len(list(cache.iterdir())) == 1
    with appearing(cache / "of a live process") as partial:
        partial.mkdir()
        converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, cache)
        assert partial.is_dir()
        assert set(cache.iterdir()) == {converted.folder, partial.parent}


def test_fields_that_the_checkpoint_decides_cannot_be_given_otherwise(tmp_path):
    with pytest.raises(UserError, match="width = 7 was given, and the checkpoint has 6"):
        pretrained.obtain(FAMILY, save(tmp_path / "source"), {"width": 7}, tmp_path / "cache")


def test_two_processes_may_convert_at_once(tmp_path, monkeypatch):
    source, cache, original = save(tmp_path / "source"), tmp_path / "cache", convert.convert

    def second(*args):
        original(*args)  # the other process
        return original(*args)

    monkeypatch.setattr(convert, "convert", second)
    assert pretrained.obtain(FAMILY, source, {}, cache).card.parameters == 51


def test_the_cache_lies_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {})
    assert converted.folder.parent == tmp_path / "xdg" / "umemma_jax"


def test_a_converted_folder_is_taken_as_it_is(tmp_path):
    convert.convert(FAMILY, save(tmp_path / "source"), tmp_path / "ours")
    assert pretrained.obtain(FAMILY, tmp_path / "ours", {}, tmp_path / "cache").folder == tmp_path / "ours"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(UserError, match=r"is of family tests\.own_family, not vit"):
        pretrained.obtain("vit", tmp_path / "ours", {}, tmp_path / "cache")


def test_a_model_of_another_size_is_refused_with_names_and_shapes(tmp_path):
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    with pytest.raises(UserError) as caught:
        converted.fit(like(own_family.Model(width=6, features=5), jnp.ones((2, 4))))
    assert "2 of another shape" in str(caught.value)
    assert "params/out/kernel (6, 3) instead of (6, 5)" in str(caught.value)


def test_what_does_not_fit_is_found_without_reading_a_tensor(tmp_path, monkeypatch):
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    other = like(own_family.Model(width=6, features=5), jnp.ones((2, 4)))
    with pytest.raises(UserError) as of_fit:
        converted.fit(other)
    monkeypatch.setattr(files.Weights, "read", lambda *args: pytest.fail("a tensor is read"))
    with pytest.raises(UserError) as of_check:
        converted.check(other)
    assert str(of_check.value) == str(of_fit.value)
    converted.check(like(own_family.Model(width=6, features=3), jnp.ones((2, 4))))


def test_parameters_missing_and_left_over_are_named(tmp_path):
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    variables = like(own_family.Model(6, 3), jnp.ones((2, 4)))
    variables["params"]["new"] = {"bias": variables["params"]["out"]["bias"]}
    del variables["params"]["hidden"]
    with pytest.raises(UserError) as caught:
        converted.fit(variables)
    assert "1 missing: params/new/bias (3,)" in str(caught.value)
    assert "2 not used: params/hidden/bias (6,), params/hidden/kernel (4, 6)" in str(caught.value)


class Canned(pretrained.Converted):
    """A converted checkpoint whose arrays are given."""

    def __init__(self, arrays, **card):
        self.folder, self._arrays = "canned", arrays
        empty = {field.name: {} for field in dataclasses.fields(model_card.Card)}
        self.card = model_card.Card(**{**empty, "optional": [], **card})

    @property
    def arrays(self):
        return dict(self._arrays)

    @property
    def shapes(self):
        return {name: array.shape for name, array in self._arrays.items()}


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_layers_are_stacked_for_a_model_that_scans():
    layers = [np.full((2, 3), index, np.float32) for index in range(4)]
    arrays = {f"params/body/layer{index}/kernel": layer for index, layer in enumerate(layers)}
    wanted = {"params": {"body": {"layers": {"kernel": np.zeros((4, 2, 3), np.float32)}}}}
    fitted = Canned(arrays).fit(shapes(wanted))
    np.testing.assert_array_equal(fitted["params"]["body"]["layers"]["kernel"], layers)
    with pytest.raises(UserError, match="1 not used: params/body/layer3/kernel"):
        Canned(arrays).fit(shapes({"params": {"body": {"layers": {"kernel": np.zeros((3, 2, 3), np.float32)}}}}))
    arrays["params/body/layer2/kernel"] = np.zeros((2, 4), np.float32)
    with pytest.raises(UserError, match=r"1 missing: params/body/layers/kernel \(4, 2, 3\)"):
        Canned(arrays).fit(shapes(wanted))


def test_optional_parameters_may_stay_unused():
    arrays = {"params/a": np.zeros(2, np.float32), "params/pooler": np.zeros(3, np.float32)}
    fitted = Canned(arrays, optional=["params/pooler"]).fit(shapes({"params": {"a": arrays["params/a"]}}))
    assert set(fitted["params"]) == {"a"}


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("antialias", [False, True], ids=["Hugging Face", "timm"])
@pytest.mark.parametrize("size", [(5, 7), (14, 14), (3, 20)])
def test_positions_are_resized_as_pytorch_does(size, antialias):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
    grid = np.random.default_rng(0).normal(size=(7, 9, 4)).astype(np.float32)
    fit = "antialiased_positions" if antialias else "positions"
    canned = Canned({"params/grid": grid}, fit={"params/grid": fit})
    fitted = canned.fit(shapes({"params": {"grid": np.zeros((*size, 4), np.float32)}}))["params"]["grid"]
    theirs = torch.nn.functional.interpolate(
        torch.tensor(grid).permute(2, 0, 1)[None], size, mode="bicubic", align_corners=False, antialias=antialias
    )
    np.testing.assert_allclose(fitted, theirs[0].permute(1, 2, 0).numpy(), atol=2e-6)


@pytest.mark.parametrize("first_layer", pretrained.FIRST_LAYERS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_first_layers_keep_their_response_to_equal_channels(first_layer, channels):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 5)).astype(np.float32)
    canned = Canned({"params/kernel": kernel}, fit={"params/kernel": "channels"})
    wanted = shapes({"params": {"kernel": np.zeros((3, 3, channels, 5), np.float32)}})
    fitted = canned.fit(wanted, first_layer)["params"]["kernel"]
    if first_layer == "average" or channels == 6:
        np.testing.assert_allclose(fitted.sum(axis=2), kernel.sum(axis=2), atol=1e-5)
    if first_layer == "tile":
        np.testing.assert_allclose(fitted[:, :, 0], kernel[:, :, 0] * 3 / channels, rtol=1e-6)


def test_another_number_of_channels_must_be_asked_for():
    kernel = np.zeros((3, 3, 3, 5), np.float32)
    canned = Canned({"params/kernel": kernel}, fit={"params/kernel": "channels"})
    with pytest.raises(UserError, match="takes 3 channels, the inputs have 1: set the encoder's first_layer"):
        canned.fit(shapes({"params": {"kernel": np.zeros((3, 3, 1, 5), np.float32)}}))


def test_what_was_trained_is_exported(tmp_path):
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    variables = converted.fit(like(own_family.Model(6, 3), jnp.ones((2, 4))))
    trained = jax.tree.map(lambda x: x + 1, variables)
    converted.export(tmp_path / "trained.safetensors", trained)
    again = pretrained.obtain(FAMILY, tmp_path / "trained.safetensors", {}, tmp_path / "cache")
    np.testing.assert_array_equal(again.arrays["params/out/kernel"], STATE["2.weight"].T + 1)


def test_what_the_model_left_out_is_exported_as_it_was(tmp_path, monkeypatch):
    rules = [*own_family.dense("hidden", "0"), *own_family.dense("out", "2", optional=True)]
    (table,) = own_family.FORMATS
    monkeypatch.setattr(own_family, "FORMATS", (dataclasses.replace(table, rules=lambda source, fields: rules),))
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    variables = converted.fit({"params": {"hidden": {"kernel": np.zeros((4, 6)), "bias": np.zeros(6)}}})
    converted.export(tmp_path / "trained.safetensors", jax.tree.map(lambda x: x + 1, variables))
    exported = load_file(tmp_path / "trained.safetensors")
    np.testing.assert_array_equal(exported["0.bias"], STATE["0.bias"] + 1)
    np.testing.assert_array_equal(exported["2.weight"], STATE["2.weight"])


def test_what_has_another_size_is_not_exported(tmp_path):
    converted = pretrained.obtain(FAMILY, save(tmp_path / "source"), {}, tmp_path / "cache")
    other = own_family.Model(width=8, features=3).init(jax.random.key(0), jnp.ones((2, 4)))
    with pytest.raises(UserError, match=r"0\.weight is \(8, 4\), and \(6, 4\) in the original"):
        converted.export(tmp_path / "trained.safetensors", other)
    assert not (tmp_path / "trained.safetensors").exists()
