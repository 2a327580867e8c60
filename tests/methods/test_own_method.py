"""What a method's name leads to: a module, its part of the config, or one line."""

import sys

import pytest

from tests.methods import arrays
from umemma_jax import config as config_lib
from umemma_jax import methods
from umemma_jax.config import apply_method, default_config, tower_config
from umemma_jax.errors import UserError
from umemma_jax.methods import METHODS


def recipe(method=None):
    config = default_config()
    config.modalities, config.data.dir = ("a", "b"), "data"
    for name in config.modalities:
        config.inputs[name] = tower_config({"name": "mlp"})
    if method:
        apply_method(config, method)
    return config


def test_a_module_of_ones_own_is_a_method():
    config = recipe("tests.own_method")
    config_lib.check(config)
    assert config.method.to_dict() == {"name": "tests.own_method", "settings": {"weight": 0.1}}
    assert config_lib.method_name(config) == "tests.own_method"


def test_switches_come_first_and_labels_need_no_jax():
    assert list(METHODS)[:4] == ["late_fusion", "augmentation", "ume", "ume_mma"]
    assert not any(methods.has_loss(METHODS[name]) for name in list(METHODS)[:4])
    assert all(methods.has_loss(METHODS[name]) for name in list(METHODS)[4:])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tcmx", "'tcmx': unknown method, did you mean tcmax"),
        ("no.module", "method 'no.module': ModuleNotFoundError"),
        ("tests.toy", "method 'tests.toy': the module must export LABEL, SOURCE, SWITCHES, .*lacks LABEL"),
        ("raising.method", "method 'raising.method': ZeroDivisionError: division by zero: mend"),
    ],
)
def test_a_name_that_leads_nowhere_ends_in_one_line(name, said, tmp_path, monkeypatch):
    (tmp_path / "raising").mkdir()
    (tmp_path / "raising" / "method.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(UserError, match=f"^{said}"):
        methods.method(name)


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        ("tcmax", {"fusion.head": "mlp"}, "config.fusion.head: 'mlp', but TCMax needs 'linear'"),
        ("tcmax", {"fusion.accumulate": 2}, "config.fusion.accumulate: 2, but TCMax needs 1"),
        ("tcmax", {"parallel": "pmap"}, "config.parallel: 'pmap', but TCMax needs 'jit'"),
        ("ogm", {}, "config.fusion.optimizer: 'adamw', but OGM needs 'sgd'"),
        ("cml", {"method.settings.weight": -1.0}, "config.method.settings.weight: -1.0 must be a number from 0 on"),
        ("cml", {"method.name": "dgl", "method.settings": {}}, "config.method.settings: .*dgl takes weight"),
        ("cml", {"method.name": "ume"}, "config.method.name: 'ume' has no loss of its own"),
        ("cml", {"method.name": ""}, "config.method.settings: given without config.method.name"),
    ],
)
def test_what_a_method_cannot_use_ends_in_one_line(method, changes, said):
    config = recipe(method)
    for field, value in changes.items():
        config_lib.set_fields(config, {field: value})
    with pytest.raises(UserError, match=f"^{said}"):
        config_lib.check(config)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ("1 / 0", r"ZeroDivisionError: division by zero \(.*failing.py:6\)"),
        ("rows.logits.missing", r"AttributeError: .* has no attribute 'missing' \(.*failing.py:6\)"),
        ("rows.logits", r"row_losses gives \(5, 4\): losses of rows are \(5,\)"),
        ("None", r"row_losses gives NoneType: losses of rows are \(5,\)"),
    ],
)
def test_a_loss_that_fails_ends_in_one_line_that_says_where(losses, said, tmp_path, monkeypatch):
    switches = "SWITCHES = {'unimodal': True, 'fusion': True, 'augment': True}"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "failing.py").write_text(
        f"LABEL = SOURCE = 'one'\n{switches}\n\n\ndef row_losses(rows):\n    return {losses}\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("own", "own.failing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match=rf"^method 'own.failing': {said}$"):
        methods.traced(methods.method("own.failing"), arrays.rows())
