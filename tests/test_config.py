"""Recipes: loading them, the checks that need no data, the methods, and what may differ on resuming."""

import pathlib

import pytest
from ml_collections import ConfigDict

from umemma_jax import config as config_lib
from umemma_jax.config import apply_method, default_config, tower_config
from umemma_jax.errors import UserError
from umemma_jax.methods import METHODS

ROOT = pathlib.Path(__file__).resolve().parents[1]


def small_config():
    """The least that passes the check."""
    config = default_config()
    config.data.dir = "data"
    config.modalities = ("image", "audio")
    for name in config.modalities:
        config.inputs[name] = tower_config({"name": "lenet"})
    return config


def write(tmp_path, text):
    file = tmp_path / "recipe.py"
    file.write_text(text)
    return str(file)


# Loading.


def test_load_calls_get_config_with_the_argument(tmp_path):
    file = write(
        tmp_path,
        "from umemma_jax.config import default_config\n"
        "SEED = 1\n"
        "def get_config(seed=None):\n"
        "    config = default_config()\n"
        "    config.seed = int(seed or SEED)\n"
        "    return config\n",
    )
    assert config_lib.load(file).seed == 1
    assert config_lib.load(f"{file}:7").seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "{file}, line 1: .*: mend the line"),
        ("import nonsense_module\n", "{file}, line 1: ModuleNotFoundError: .*nonsense_module"),
        ("x = 1\n", r"{file}: defines no function get_config\(\), see .*configs for examples"),
        ("get_config = 3\n", "{file}: defines no function get_config"),
        ("def get_config():\n    pass\n", r"{file}: get_config\(\) returns NoneType: end it with `return config`"),
        ("def get_config():\n    return {{}}['a']\n", "{file}, line 2: KeyError: 'a'"),
        ("def get_config():\n    one()\n\ndef one():\n    1 / 0\n", "{file}, line 5: ZeroDivisionError"),
    ],
)
def test_load_names_the_line_that_fails(tmp_path, text, message):
    file = write(tmp_path, text.format())
    with pytest.raises(UserError, match=message.format(file=file)) as error:
        config_lib.load(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("parameters", "argument"), [("", ":one"), ("method", ""), ("*, method", ":one")])
def test_load_refuses_arguments_that_do_not_fit(tmp_path, parameters, argument):
    file = write(tmp_path, f"def get_config({parameters}):\n    return None\n")
    with pytest.raises(UserError, match=rf"--config={file}{argument}: get_config: .*FILE:ARGUMENT"):
        config_lib.load(f"{file}{argument}")


def test_load_absent_file_folder_and_binary(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("absent.py", ".", "binary"):
        with pytest.raises(UserError, match=r"cannot be read.*name a file, or one of av_mnist, ave"):
            config_lib.load(str(tmp_path / name))


def test_load_lets_a_user_error_pass(tmp_path):
    file = write(
        tmp_path, "from umemma_jax.config import *\ndef get_config(m):\n    apply_method(default_config(), m)\n"
    )
    with pytest.raises(UserError, match=r"^'best': unknown method, use one of late_fusion, augmentation"):
        config_lib.load(f"{file}:best")


# Checks.


def test_the_small_config_passes():
    config_lib.check(small_config())


BAD_VALUES = [
    ("modalities", ("image",), "name at least two"),
    ("modalities", ("image", "image"), "a name stands twice"),
    ("modalities", ("image", 3), "not all names"),
    ("modalities", ("image", "video"), None),
    ("seed", -1, "must be 0 or more"),
    ("seed", 2**31, "31 bits"),
    ("data.dir", "", "name the folder"),
    ("data.batch_size", 0, "must be 1 or more"),
    ("data.threads", -1, "must be 0 or more"),
    ("data.validation_share", 1.0, r"in \[0, 1\)"),
    ("unimodal.epochs", -1, "must be 0 or more"),
    ("unimodal.optimizer", "adam", "'adam' is not one of adamw, sgd"),
    ("unimodal.learning_rate", 0.0, "above 0"),
    ("unimodal.learning_rate", float("nan"), "nan is not finite"),
    ("unimodal.warmup", 1.5, r"in \[0, 1\]"),
    ("fusion.clip", float("inf"), "finite"),
    ("fusion.weight_decay", -0.1, "0 or more"),
    ("fusion.momentum", 1.0, r"in \[0, 1\)"),
    ("fusion.label_smoothing", -0.1, r"in \[0, 1\)"),
    ("fusion.head", "attention", "'attention' is not one of linear, mlp"),
    ("missing.layout", "sorted", "random, stratified"),
    ("missing.stand_in", "median", "zero, token, mean"),
    ("parallel", "threads", "jit, pmap"),
    ("loss", "hinge", "'hinge' is not one of auto"),
    ("trackers", ("tensorbord",), "'tensorbord' is not one of tensorboard, wandb, mlflow"),
    ("time_limit", -1.0, "0 or more"),
    ("fusion.patience", -1, "must be 0 or more"),
    ("focal_gamma", -1.0, "0 or more"),
    ("class_weights", ConfigDict({"dog": -1.0}), "'dog': -1.0 must be a number from 0 on"),
    ("class_weights", ConfigDict({"dog": "twice"}), "'dog': 'twice' must be a number"),
    ("dropout", 1.0, r"in \[0, 1\)"),
    ("evaluation.rates", (), "at least one"),
    ("evaluation.rates", (0.5, 2), r"in \[0, 1\]"),
    ("evaluation.rates", ("all",), "must be numbers"),
    ("evaluation.rates", (0.5,) * 1001, "at most 1000"),
    ("evaluation.seeds", 0, "must be 1 or more"),
    ("evaluation.resamples", 0, "must be 1 or more"),
    ("evaluation.alpha", 1.0, r"must be in \(0, 1\)"),
    ("evaluation.deployment", ConfigDict({"video": 1.0}), "unknown pattern 'video', join some of image, audio"),
    ("data.threads", 1025, "use 1024 at most"),
    ("fusion.weight_decay", 1e300, "does not fit into float32"),
    ("modalities", tuple(f"m{number}" for number in range(17)), "17 have 2\\^17 - 1 missing patterns: name 16 at most"),
    ("unimodal.accumulate", 0, "must be 1 or more"),
    ("missing.capacities", -1, "must be 0 or more"),
    ("fusion.moments", "float16", "is not one of float32, bfloat16"),
    ("log_every", 0, "must be 1 or more"),
    ("keep_checkpoints", 0, "must be 1 or more"),
    ("inputs.image.length", -1, "must be 0 or more"),
    ("inputs.image.learning_rate_scale.unimodal", -1.0, "0 or more"),
    ("fusion.ema", 1.0, r"in \[0, 1\)"),
    ("inputs.image.encoder.name", "a/b", "name an encoder"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_check_names_the_field(field, value, message):
    config = small_config()
    put(config, field, value)
    expected = rf"config\.{field}: .*{message}" if message else r"config\.inputs\.video: missing, though 'video'"
    with pytest.raises(UserError, match=expected) as error:
        config_lib.check(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sed", 3, "sed: unknown field, there are .*seed"),
        ("fusion.epoch", 3, r"fusion\.epoch: unknown field, there are .*epochs"),
        ("inputs.image.frozn", True, r"inputs\.image\.frozn: unknown field, there are .*frozen"),
        ("inputs.image", {"encoder": {"name": "lenet"}}, r"inputs\.image\.\w+: missing: .*tower_config"),
        ("inputs.image", tower_config({}), r"inputs\.image\.encoder\.name: None: name an encoder"),
        ("fusion", {"epochs": 3}, r"fusion\.\w+: missing: start the config from default_config"),
        ("seed", 1.5, r"seed: 1\.5 is not of type int, such as 0"),
        ("dropout", "much", "dropout: 'much' is not of type float"),
        ("modalities", "image", "modalities: 'image' is not of type tuple"),
        ("missing", 3, "missing: 3 is not of type ConfigDict"),
    ],
)
def test_check_compares_with_the_defaults(field, value, message):
    config = small_config()
    put(config, field, value)
    with pytest.raises(UserError, match=rf"^config\.{message}"):
        config_lib.check(config)


def test_check_wants_a_stage():
    config = small_config()
    config.unimodal.epochs = config.fusion.epochs = 0
    with pytest.raises(UserError, match="no stage has any epoch"):
        config_lib.check(config)


def put(config, field, value):
    """Sets a field, also to a value of a type that plain assignment refuses."""
    *parents, last = field.split(".")
    for parent in parents:
        config = config[parent]
    with config.ignore_type():
        config[last] = value


def test_fields_whose_keys_are_the_users_own_are_left_alone():
    config = small_config()
    config.missing.keep = {"image+audio": 2.0, "image": 1.0}
    config.inputs.image.encoder.anything = 3
    config.inputs.image.preprocess.anything = 3
    config.inputs.unused = tower_config({"name": "lenet"})
    config_lib.check(config)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1, bool, False),
        (1, float, True),
        (True, float, False),
        ("a", str, True),
        ((1, 2), tuple[int, ...], True),
        ([1, 2], tuple[int, ...], True),
        ((1, "a"), tuple[int, ...], False),
        (None, str | None, True),
        (3, str | None, False),
        (object(), object, True),
        (3, "an annotation in quotes", True),
    ],
)
def test_fits(value, kind, expected):
    assert config_lib.fits(value, kind) == expected


# Methods and resuming.


def test_methods_are_switches():
    switches = {}
    for method in ("late_fusion", "augmentation", "ume", "ume_mma"):
        config = small_config()
        apply_method(config, method)
        switches[method] = (config.unimodal.epochs > 0, config.fusion.epochs > 0, config.missing.augment)
    assert switches["late_fusion"] == (False, True, False)
    assert switches["ume"][:2] == (True, False)
    assert switches["augmentation"] == (False, True, True)
    assert switches["ume_mma"] == (True, True, True)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("ume_mma", ("large", "ume_mma")),
        ("small", ("small", "ume_mma")),
        ("small,ume", ("small", "ume")),
        ("ume,small", ("small", "ume")),
    ],
)
def test_form_and_method(argument, named):
    assert config_lib.form_and_method(argument, ("large", "small")) == named


@pytest.mark.parametrize("argument", ["small,ume,late_fusion", "small,large"])
def test_one_form_and_one_method_at_most(argument):
    with pytest.raises(UserError, match=f"config argument '{argument}': name one of large, small, and one method"):
        config_lib.form_and_method(argument, ("large", "small"))


@pytest.mark.parametrize("argument", ["smal", "smal,ume", "small,ume,smal"])
def test_a_word_that_is_neither_form_nor_method(argument):
    with pytest.raises(UserError) as error:
        config_lib.form_and_method(argument, ("large", "small"))
    assert str(error.value) == (
        f"config argument 'smal': unknown, name a form (large, small) or a method ({', '.join(METHODS)})"
    )


@pytest.mark.parametrize("method", ["late_fusion", "augmentation"])
def test_every_method_trains_its_encoders_with_the_same_settings(method):
    config = small_config()
    config.unimodal.update({"epochs": 7, "learning_rate": 0.3, "label_smoothing": 0.2, "ema": 0.9, "optimizer": "sgd"})
    config.fusion.epochs = 2
    config.inputs.image.learning_rate_scale.unimodal = 5.0
    unimodal, scales = config.unimodal.to_dict(), dict(config.inputs.image.learning_rate_scale)
    apply_method(config, method)
    fusion = {field: config.fusion[field] for field in unimodal}
    assert fusion == {**unimodal, "epochs": 9}
    assert config.inputs.image.learning_rate_scale.fusion == scales["unimodal"]


def test_differences_leave_out_what_does_not_touch_the_parameters():
    old, new = small_config(), small_config()
    new.log_every = 7
    new.evaluation.seeds = 9
    new.data.dir = "elsewhere"
    assert config_lib.differences(old.to_dict(), new.to_dict()) == []
    new.data.batch_size = 32
    new.inputs.image.encoder.channels = 8
    assert config_lib.differences(old.to_dict(), new.to_dict()) == [
        "data.batch_size: 64 -> 32",
        "inputs.image.encoder.channels: None -> 8",
    ]
