"""From a config to dataset, model and rows: what it gives, and what it refuses before anything is compiled."""

import re

import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment
from umemma_jax.config import tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data.tokenizer import TOKENIZER
from umemma_jax.data_prep.build.vocabulary import tokenizer_file
from umemma_jax.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path)
    return path


def refusal(config):
    with pytest.raises(UserError) as error:
        experiment.build(config)
    assert "\n" not in str(error.value)
    return str(error.value)


# Rows.


def test_validation_is_a_stratified_share_of_the_training_split(dataset):
    built = experiment.build(small_run.get_config(dataset))
    split, rows = built.validation
    assert split == "train" and len(rows) == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([built.train_rows, rows])), np.arange(96))
    labels = open_dataset(dataset).source("train").labels()[rows]
    assert np.bincount(labels).min() >= 3


def test_validation_split_of_its_own_or_none(dataset):
    built = experiment.build(small_run.get_config(dataset, data__validation_split="test"))
    assert (built.validation[0], len(built.validation[1]), len(built.train_rows)) == ("test", 41, 96)
    built = experiment.build(small_run.get_config(dataset, data__validation_share=0.0))
    assert (len(built.validation[1]), len(built.train_rows)) == (0, 96)


def test_what_validation_fits_is_refused_without_it_before_any_training(dataset):
    changes = {"data__validation_share": 0.0, "evaluation__label_free_bias": True}
    assert "label_free_bias: no example is for validation" in refusal(small_run.get_config(dataset, **changes))


def test_weights_of_classes_are_balanced_or_given_by_name(dataset):
    plain = experiment.build(small_run.get_config(dataset))
    assert plain.class_weights is None
    balanced = experiment.build(small_run.get_config(dataset, balance_classes=True))
    np.testing.assert_allclose(balanced.log_prior(), np.log(np.full(3, 1 / 3)), rtol=1e-6)
    given = experiment.build(small_run.get_config(dataset, class_weights={"b": 3.0}))
    assert given.class_weights.tolist() == [1, 3, 1]
    assert np.diff(given.log_prior() - plain.log_prior()) == pytest.approx([np.log(3), -np.log(3)], abs=0.1)
    assert "class_weights.d: no class" in refusal(small_run.get_config(dataset, class_weights={"d": 3.0}))


def test_weights_of_rows_are_those_of_the_training_rows_with_mean_one(tmp_path):
    def build(weights):
        small_run.write_dataset(tmp_path / "weighted", train=len(weights), weights=weights, overwrite=True)
        return experiment.build(small_run.get_config(tmp_path / "weighted", balance_classes=True))

    weights = np.tile([0.0, 2.0, 3.0, 7.0], 24)  # classes are 0, 1, 2, 0, ...
    built = build(weights)
    expected = weights[built.train_rows]
    np.testing.assert_allclose(built.row_weights, expected / expected[expected > 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(built.log_prior(), np.log(np.full(3, 1 / 3)), rtol=1e-6)
    with pytest.raises(UserError, match=r"all training examples of .* have weight 0"):
        build(np.zeros(96))


def test_lengths_and_means_are_those_of_the_pipeline(dataset):
    built = experiment.build(small_run.get_config(dataset, missing__stand_in="mean"))
    assert built.lengths == {"audio": 800}
    assert built.means["image"].shape == (1, 8, 8, 1) and built.means["image"].dtype == np.uint8
    assert built.means["audio"]["samples"].shape == (1, 800)
    assert experiment.build(small_run.get_config(dataset)).means == {}


def test_how_much_of_texts_is_cut(tmp_path):
    """One in four texts has twice as many words as there is room for; two tokens of each are special."""
    texts = ["one two three four five six"] * 3 + ["one two three four five six " * 2]
    modalities = {"title": Modality("text", "utf-8"), "note": Modality("text", "utf-8")}
    with DatasetWriter(tmp_path, name="t", description="", classes=["a", "b"], modalities=modalities) as writer:
        for number in range(40):
            long = None if number < 4 else texts[number % 4]
            writer.write("train", id=str(number), label=number % 2, title=long, note="one")
        writer.write("test", id="x", label=0, title="one", note="two")
        writer.add_file(TOKENIZER, tokenizer_file(texts))
    config = small_run.get_config(tmp_path, modalities=("title", "note"), data__validation_share=0.0)
    for name in config.modalities:
        config.inputs[name] = tower_config({"name": "word_embeddings"}, length=8)
    assert experiment.build(config).cut_texts() == [
        "title: 25% of the texts are longer than 8 tokens, 16% of all tokens are cut (config.inputs.title.length)"
    ]
    config.inputs.title.length = 14
    assert experiment.build(config).cut_texts() == []


# Refusals.


def test_data_folder_names_the_prep_command_only_where_there_is_one(tmp_path):
    config = small_run.get_config(tmp_path / "absent")
    assert "python -m data_prep.<dataset>" in refusal(config)
    config.data.prep = "data_prep.own --raw=DIR"
    assert f"`python -m data_prep.own --raw=DIR --out={tmp_path / 'absent'}`" in refusal(config)


@pytest.mark.parametrize("field", ["train_split", "validation_split", "test_split"])
def test_unknown_split(dataset, field):
    line = refusal(small_run.get_config(dataset, **{f"data__{field}": "tests"}))
    assert line.startswith(f"config.data.{field}: 'tests' is not a split of {dataset} (it has train, test)")


def test_truncated_shard_is_found_at_once(dataset, tmp_path):
    small_run.write_dataset(tmp_path / "data")
    (shard,) = (tmp_path / "data").glob("test*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-10])
    assert refusal(small_run.get_config(tmp_path / "data")).startswith(f"{shard}: has ")


def test_modality_that_the_dataset_lacks(dataset):
    config = small_run.get_config(dataset, modalities=("image", "video"))
    config.inputs.video = config.inputs.image
    assert "config.modalities: 'video' is not in the dataset" in refusal(config)
    assert "it has image, audio, vector" in refusal(config)


@pytest.mark.parametrize("field", ["data", "evaluation"])
@pytest.mark.parametrize("size", [2, 18])  # on the four devices of the tests
def test_batch_that_does_not_divide_over_the_devices(dataset, field, size):
    line = refusal(small_run.get_config(dataset, **{f"{field}__batch_size": size}))
    assert line.startswith(f"config.{field}.batch_size = {size} does not divide evenly over 4 devices")
    assert line.endswith("use a multiple of 4")


def test_batch_larger_than_the_training_rows(dataset):
    line = refusal(small_run.get_config(dataset, data__batch_size=88))
    assert line.startswith("config.data.batch_size = 88: there are only 86 training examples")
    assert line.endswith("use 84 or less")
    experiment.build(small_run.get_config(dataset, data__batch_size=84))


def test_fewer_examples_than_devices(tmp_path):
    small_run.write_dataset(tmp_path / "data", train=3)
    line = refusal(small_run.get_config(tmp_path / "data", data__validation_share=0.0))
    assert line == "config.data.dir: 3 training examples are too few for 4 devices"


def test_unknown_missing_pattern(dataset):
    config = small_run.get_config(dataset)
    config.missing.keep = {"image+vidio": 1.0}
    assert refusal(config).startswith(
        "config.missing.keep: unknown pattern 'image+vidio', join some of image, audio by"
    )


ENCODERS = [
    ({"name": "lenett"}, "name: .*no module umemma_jax.encoders.lenett.*name a module that exports Model"),
    ({"name": "layers"}, "name: .*exports no Model"),
    ({"name": "my_package.my_encoder"}, "name: .*no module my_package.my_encoder"),
    ({"name": "lenet", "chanels": 3}, "chanels: unknown, lenet takes channels, dtype"),
    ({"name": "lenet", "axis_name": "data"}, "axis_name: unknown, lenet takes channels"),
    ({"name": "lenet", "channels": "abc"}, "channels: 'abc' is not of type int"),
    ({"name": "lenet", "channels": True}, "channels: True is not of type int"),
    ({"name": "lenet", "channels": -1, "layers": 1}, r"channels: -1 is negative"),
    ({"name": "lenet", "channels": 2**31}, r"channels: 2147483648 does not fit into 31 bits"),
    ({"name": "mlp", "widths": (8,) * 1001}, r"widths: 1001 layers, there are 1000 at most"),
    ({"name": "vit", "depth": 10**6}, r"depth: 1000000 layers, there are 1000 at most"),
    ({"name": "lenet", "first_layer": "mean"}, r"first_layer: 'mean' is neither average nor tile"),
    (
        {"name": "lenet", "channels": 10**5, "layers": 1},
        r"lenet \(channels=100000, layers=1\): this takes 2,880.1 GB, which is more than 80% of",
    ),
    ({"name": "lenet", "layers": 9}, "encoder lenet: 8x8 inputs cannot be halved 10 times"),
    (
        {"name": "lenet", "layers": 1, "dtype": "float33"},
        r"lenet \(dtype='float33', layers=1\) fails on inputs .*float33",
    ),
    ({"name": "spectrogram_cnn", "channels": (8, "x")}, r"channels: \(8, 'x'\) is not of type "),
]


@pytest.mark.parametrize(("encoder", "message"), ENCODERS)
def test_encoder(dataset, encoder, message):
    config = small_run.get_config(dataset)
    config.inputs.image = tower_config(encoder)
    assert re.match(rf"config\.inputs\.image\.encoder[.:] ?{message}", refusal(config))


def test_features_must_be_rows(dataset):
    """A module of the user's own whose features are no [B, D]."""
    config = small_run.get_config(dataset)
    config.inputs.image = tower_config({"name": "tests.own_encoder", "width": 5})
    assert "tests.own_encoder (width=5) gives features of shape (1, 8, 8, 5) instead of [B, D]" in refusal(config)


def test_what_fails_inside_a_module_of_the_users_own_keeps_its_traceback(dataset):
    config = small_run.get_config(dataset, modalities=("vector", "audio"))
    config.inputs.vector = tower_config({"name": "tests.own_encoder", "width": -1})
    with pytest.raises(Exception, match=r"non-negative|negative") as error:
        experiment.build(config)
    assert not isinstance(error.value, UserError)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("audio", {"n_mel": 3}, r"\.n_mel: unknown.* n_mels"),
        ("audio", {"n_mels": "3"}, r"\.n_mels: .*int"),
        ("audio", {"hop_length": 0}, r"\.hop_length: .*positive"),
        ("image", {"mean": (1.0, 2.0)}, r"\.mean: 2 values"),
    ],
)
def test_preprocess(dataset, name, values, message):
    config = small_run.get_config(dataset)
    config.inputs[name] = tower_config({"name": "lenet", "layers": 1}, values)
    assert re.match(rf"config\.inputs\.{name}\.preprocess{message}", refusal(config))


def test_length_of_a_modality_of_fixed_shape(dataset):
    config = small_run.get_config(dataset)
    config.inputs.image.length = 10
    assert refusal(config) == "config.inputs.image.length: image/raw takes no length"


def test_mean_stand_in_without_statistics(dataset, monkeypatch):
    config = small_run.get_config(dataset, missing__stand_in="mean")
    opened = open_dataset(dataset)
    opened.statistics.pop("audio")
    monkeypatch.setattr(experiment, "open_dataset", lambda *args, **kwargs: opened)
    assert refusal(config).startswith("config.missing.stand_in: ")


# Sizes that would not fit into the machine's memory.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation__batch_size": 2**30},
            r"evaluation\.batch_size: 1073741824 rows, of inputs\.audio most: this takes",
        ),
        ({"evaluation__seeds": 2**31 - 1}, r"evaluation\.seeds: this takes 1,584\.8 GB"),
    ],
)
def test_sizes_are_reckoned_before_anything_is_allocated(dataset, changes, message):
    said = refusal(small_run.get_config(dataset, **changes))
    assert re.match(rf"config\.{message}", said) and "UMEMMA_MEMORY_GB" in said


def test_a_length_is_refused_before_there_is_as_much_as_one_row(dataset):
    config = small_run.get_config(dataset)
    config.inputs.audio.length = 2**31 - 1
    assert refusal(config).startswith("config.inputs.audio.length: this takes 137.4 GB")


def test_the_limit_is_the_users(dataset, monkeypatch):
    monkeypatch.setenv("UMEMMA_MEMORY_GB", "0.0001")
    said = refusal(small_run.get_config(dataset))
    assert "this takes 0.0 GB, which is more than UMEMMA_MEMORY_GB=0.0001 allows" in said
