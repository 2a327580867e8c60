"""From a config's modality to a tower: pre-trained encoders and tokenizers, and what is refused before any training."""

import io
import types

import jax
import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfTransformer

from tests import small_run
from umemma_jax import experiment, inputs, presets
from umemma_jax.config import tower_config
from umemma_jax.data import example
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.training import train

pytestmark = pytest.mark.usefixtures("one_device")

WORDS = ("red", "green", "blue", "shirt", "shoe", "bag")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
BERT = {"name": "bert", "width": 16, "depth": 1, "heads": 2, "mlp_width": 32, "positions": 8, "pool": "mean"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path, train=32, test=9)
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Vectors and texts, each of which tells the class most of the time; a vocabulary beside them."""
    path = tmp_path_factory.mktemp("data") / "texts"
    rng = np.random.default_rng(0)
    modalities = {
        "text": Modality(kind="text", encoding="utf-8"),
        "vector": Modality(kind="tabular", encoding="float32", shape=(3,)),
    }
    with DatasetWriter(path, name="t", description="", classes=["r", "g", "b"], modalities=modalities) as writer:
        for split, count in {"train": 96, "test": 30}.items():
            for number in range(count):
                label = number % 3
                vector = np.eye(3)[label] + 0.5 * rng.normal(size=3)
                words = [*rng.choice(WORDS[3:], size=rng.integers(0, 4)), WORDS[label]]
                writer.write(split, id=f"{number}", label=label, text=" ".join(words), vector=vector.astype(np.float32))
    (path / "vocab.txt").write_text("\n".join(VOCABULARY))
    return path


def image_config(dataset, **encoder):
    config = small_run.get_config(dataset, modalities=("vector", "image"))
    config.inputs.vector = tower_config({"name": "tests.own_family", **encoder})
    return config


def text_config(texts, **encoder):
    config = small_run.get_config(texts, modalities=("text", "vector"))
    config.inputs.text = tower_config({**BERT, **encoder}, length=8, tokenizer=str(texts / "vocab.txt"))
    config.inputs.vector = tower_config({"name": "tests.own_encoder", "width": 6})
    return config


def checkpoint(path, inputs=small_run.CLASSES, width=6):
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (width, inputs), "0.bias": (width,), "2.weight": (4, width), "2.bias": (4,)}
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(state, path)
    return state


def refusal(config):
    with pytest.raises(UserError) as error:
        experiment.build(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_encoder_starts_at_its_pretrained_weights(dataset, tmp_path):
    state = checkpoint(tmp_path / "x.safetensors")
    built = experiment.build(image_config(dataset, pretrained=str(tmp_path / "x.safetensors")))
    params = jax.device_get(train.initial_variables(built))["params"]
    np.testing.assert_array_equal(params["encoders_vector"]["hidden"]["kernel"], state["0.weight"].T)
    np.testing.assert_array_equal(params["encoders_vector"]["out"]["bias"], state["2.bias"])
    assert params["heads_vector"]["kernel"].shape == (4, small_run.CLASSES)  # fresh


def test_n_grams_know_the_training_texts_and_travel_in_the_checkpoint(texts, tmp_path):
    config = text_config(texts)
    config.inputs.text = tower_config({"name": "bag_of_words", "width": 8}, length=50, tokenizer="ngrams")
    built = experiment.build(config)
    source = built.dataset.source("train")
    trained_on = [example.bytes_value(row, "text").decode() for row in source.examples(built.train_rows)]
    reference = TfidfTransformer().fit(presence(trained_on, built.inputs[0].tokenizer))
    before = train.initial_variables(built)["batch_stats"]["encoders_text"]["idf"]
    np.testing.assert_allclose(before, reference.idf_, rtol=1e-6)
    trained = train.train(built, tmp_path)
    np.testing.assert_array_equal(trained.fusion["batch_stats"]["encoders_text"]["idf"], before)
    loaded = train.load(experiment.build(config), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(loaded.fusion), jax.device_get(trained.fusion))
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion)[0]
    assert results["patterns"]["text"]["accuracy"] > 0.9


def presence(texts, tokenizer):
    """Which n-grams each text has, [B, V]."""
    found = tokenizer.encode(texts, 50)
    table = np.zeros((len(texts), tokenizer.vocabulary))
    for row, (tokens, length) in enumerate(zip(found["tokens"], found["length"], strict=True)):
        table[row, tokens[:length]] = 1
    return table


def test_a_run_of_other_weights_is_not_continued(dataset, tmp_path):
    checkpoint(tmp_path / "x.safetensors")
    config = image_config(dataset, pretrained=str(tmp_path / "x.safetensors"))
    train.claim_workdir(config, experiment.build(config).fingerprints, tmp_path / "run")
    train.claim_workdir(config, experiment.build(config).fingerprints, tmp_path / "run")
    save_file({k: v + 1 for k, v in checkpoint(tmp_path / "x.safetensors").items()}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="the pretrained's files"):
        train.claim_workdir(config, experiment.build(config).fingerprints, tmp_path / "run")


def test_trained_encoders_are_exported_under_their_original_names(dataset, tmp_path):
    state = checkpoint(tmp_path / "x.safetensors")
    built = experiment.build(image_config(dataset, pretrained=str(tmp_path / "x.safetensors")))
    variables = train.initial_variables(built)
    (folder,) = inputs.export(built.inputs, variables, tmp_path / "export")
    assert folder == tmp_path / "export" / "vector"
    exported = load_file(folder / "model.safetensors")
    assert set(exported) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(exported[name], array)
    with pytest.raises(UserError, match="no encoder of this config started from a checkpoint"):
        inputs.export(experiment.build(image_config(dataset)).inputs, variables, tmp_path / "none")


def test_weights_that_do_not_fit_the_data_are_refused(dataset, tmp_path):
    checkpoint(tmp_path / "x.safetensors", inputs=5)
    message = refusal(image_config(dataset, pretrained=str(tmp_path / "x.safetensors")))
    assert message.startswith("config.inputs.vector.encoder.pretrained: ")
    assert "params/hidden/kernel (5, 6) instead of (3, 6)" in message


def test_fields_that_contradict_the_weights_are_refused(dataset, tmp_path):
    checkpoint(tmp_path / "x.safetensors")
    message = refusal(image_config(dataset, pretrained=str(tmp_path / "x.safetensors"), width=7))
    assert message.endswith("x.safetensors: width = 7 was given, and the checkpoint has 6: leave it out")


def test_a_checkpoint_that_is_not_there(dataset):
    message = refusal(image_config(dataset, pretrained="/no/such"))
    assert message == "config.inputs.vector.encoder.pretrained: /no/such: no such file or folder, name a checkpoint"


def test_an_encoder_without_tables(dataset, tmp_path):
    checkpoint(tmp_path / "x.safetensors")
    config = image_config(dataset)
    config.inputs.image.encoder.pretrained = str(tmp_path / "x.safetensors")
    assert "encoder 'lenet' exports no FORMATS" in refusal(config)


def test_channel_statistics_are_the_checkpoints_unless_given(dataset, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    checkpoint(folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.25, 0], "image_std": [1, 1, 0.5]}')
    config = image_config(dataset, pretrained=str(folder))
    preprocess = experiment.build(config).inputs[0].tower.preprocess
    assert preprocess.mean == (127.5, 63.75, 0.0) and preprocess.std == (255.0, 255.0, 127.5)
    config.inputs.vector.preprocess = {"mean": (1.0, 2.0, 3.0)}
    preprocess = experiment.build(config).inputs[0].tower.preprocess
    assert preprocess.mean == (1.0, 2.0, 3.0) and preprocess.std == (255.0, 255.0, 127.5)


# Text.


AST = {
    "form": "fbank",
    "sample_rate": 16000,
    "n_mels": 64,
    "frames": 50,
    "normalise": "fixed",
    "mean": -6.0,
    "std": 4.0,
}


def preprocessing(kind, stated, given=None, **modality):
    """The preprocessing of a modality whose encoder's checkpoint states some of it."""
    converted = types.SimpleNamespace(card=types.SimpleNamespace(inputs=stated))
    recipe = ConfigDict({"preprocess": given or {}})
    modality = types.SimpleNamespace(**{"kind": kind, "mean": None, "std": None, "sample_rate": None, **modality})
    return inputs.build_preprocess(recipe, modality, converted, "m")


def test_sound_is_made_as_the_checkpoint_states_unless_given():
    found = preprocessing("audio", AST, sample_rate=16000)
    assert (type(found).__name__, found.mean, found.std, found.n_mels, found.frames) == ("Fbank", -6.0, 4.0, 64, 50)
    assert preprocessing("audio", AST, {"frames": 40}, sample_rate=16000).frames == 40
    other = preprocessing("audio", AST, {"form": "log_mel"}, sample_rate=16000)
    assert (type(other).__name__, other.n_mels, other.mean) == ("LogMel", 40, 0.0)


def test_sound_of_another_rate_than_the_checkpoints_is_refused_unless_given():
    with pytest.raises(
        UserError, match=r"preprocess\.sample_rate: the checkpoint is for 16000 Hz, and the dataset has 1"
    ):
        preprocessing("audio", AST, sample_rate=11025)
    assert preprocessing("audio", AST, {"sample_rate": 11025}, sample_rate=11025).sample_rate == 11025


def test_one_stated_value_is_that_of_every_channel():
    found = preprocessing("image", {"mean": [127.5], "std": [64.0]}, mean=[1.0, 2, 3], std=[1.0, 1, 1])
    assert (found.mean, found.std) == ((127.5,) * 3, (64.0,) * 3)
    of_three = {"mean": [1.0, 2.0, 3.0], "std": [1.0] * 3}
    assert preprocessing("image", of_three, mean=[5.0], std=[2.0]).mean == (5.0,)


def test_text_trains_and_reports(texts, tmp_path):
    config = text_config(texts)
    built = experiment.build(config)
    assert built.lengths == {"text": 8} and set(built.tokenizers) == {"text"}
    trained = train.train(built, tmp_path / "run")
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    assert results["patterns"]["text+vector"]["accuracy"] > 0.9
    assert results["patterns"]["text"]["accuracy"] > 0.9


def test_the_mean_text_is_the_empty_one(texts):
    config = text_config(texts)
    config.missing.stand_in = "mean"
    mean = experiment.build(config).means["text"]
    np.testing.assert_array_equal(mean["length"], [2])
    np.testing.assert_array_equal(mean["tokens"], [[2, 3, 0, 0, 0, 0, 0, 0]])


def test_the_vocabulary_is_that_of_the_tokenizer_unless_given(texts):
    built = experiment.build(text_config(texts))
    assert built.inputs[0].tower.encoder().vocabulary == len(VOCABULARY)
    assert experiment.build(text_config(texts, vocabulary=64)).inputs[0].tower.encoder().vocabulary == 64


def test_the_levels_of_categories_are_those_of_the_dataset(tmp_path):
    table = Modality("tabular", "float32", shape=(2,), columns=("a", "b"), levels={"b": {"x": 9, "y": 5, "z": 1}})
    modalities = {"table": table, "note": Modality("tabular", "float32", shape=(1,))}
    with DatasetWriter(tmp_path / "t", name="t", description="", classes=["r", "g"], modalities=modalities) as writer:
        for number in range(8):
            values = {"table": np.array([number, number % 3], np.float32), "note": np.ones(1, np.float32)}
            writer.write("train" if number < 6 else "test", id=str(number), label=number % 2, **values)
    config = presets.small(str(tmp_path / "t"))
    assert experiment.build(config).inputs[0].tower.encoder().levels == (4,)
    assert config.inputs.table.encoder.embedding == 16
    assert config.inputs.note.encoder.name == "mlp"  # of numbers without names
    config.inputs.table = tower_config({"name": "mlp"})
    assert "preprocess.form: 'standardised' takes numbers alone, for categories choose 'columns'" in refusal(config)
    config.inputs.table = tower_config({"name": "mlp"}, {"form": "columns"})
    assert "encoder mlp: takes vectors [B, C], of the preprocess.form 'standardised'" in refusal(config)


@pytest.mark.parametrize("vocabulary", [10, 5000])
def test_a_vocabulary_of_another_size(texts, vocabulary):
    message = refusal(text_config(texts, vocabulary=vocabulary))
    assert f"its vocabulary is {vocabulary}, that of the tokenizer {texts / 'vocab.txt'} is 11" in message


def test_a_text_without_tokenizer_or_length(texts):
    config = text_config(texts)
    config.inputs.text.tokenizer = ""
    assert refusal(config).startswith("config.inputs.text.tokenizer: name a folder or file with the tokenizer")
    config.inputs.text.tokenizer = "/no/such"
    assert refusal(config).startswith("config.inputs.text.tokenizer: /no/such")
    config = text_config(texts)
    config.inputs.text.length = 0
    assert refusal(config).startswith("config.inputs.text.length: text needs a length")


def test_a_tokenizer_for_what_is_no_text(texts):
    config = text_config(texts)
    config.inputs.vector.tokenizer = str(texts)
    assert refusal(config) == "config.inputs.vector.tokenizer: vector is tabular, leave it empty"


def test_text_in_buckets_trains_like_text_without(texts, tmp_path):
    """By SGD, since Adam makes steps out of rounding noise."""
    found = {}
    for buckets in ((), (4, 6)):
        config = text_config(texts)
        config.inputs.text.buckets = buckets
        config.unimodal.epochs = config.fusion.epochs = 1
        config.unimodal.optimizer = config.fusion.optimizer = "sgd"
        built = experiment.build(config)
        assert built.lengths == {"text": (4, 6, 8) if buckets else 8}
        found[buckets] = jax.device_get(train.train(built, tmp_path / str(len(buckets))).fusion["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found.values())


@pytest.mark.parametrize("buckets", [(6, 4), (8,), (0, 4)])
def test_buckets_that_cannot_be(texts, buckets):
    config = text_config(texts)
    config.inputs.text.buckets = buckets
    assert refusal(config).startswith("config.inputs.text.buckets: ")


# Photos.


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEGs of several sizes, bright in the class's channel."""
    path = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    modalities = {
        "image": Modality(kind="image", encoding="jpeg"),
        "vector": Modality(kind="tabular", encoding="float32", shape=(3,)),
    }
    with DatasetWriter(path, name="p", description="", classes=["r", "g", "b"], modalities=modalities) as writer:
        for split, count in {"train": 64, "test": 20}.items():
            for number in range(count):
                label = number % 3
                pixels = rng.integers(0, 120, (*rng.integers(14, 30, 2), 3), np.uint8)
                pixels[..., label] += 60
                jpeg = io.BytesIO()
                PIL.Image.fromarray(pixels).save(jpeg, "JPEG")
                vector = np.eye(3, dtype=np.float32)[label]
                writer.write(split, id=f"{number}", label=label, image=jpeg.getvalue(), vector=vector)
    return path


def photo_config(photos, **preprocess):
    config = small_run.get_config(photos, modalities=("image", "vector"))
    config.inputs.image = tower_config({"name": "lenet", "channels": 4, "layers": 1}, preprocess, length=16)
    config.inputs.vector = tower_config({"name": "tests.own_encoder", "width": 6})
    return config


@pytest.mark.parametrize("stand_in", ["token", "mean"])
def test_photos_train_and_report(photos, tmp_path, stand_in):
    config = photo_config(photos, crop=12, flip=True)
    config.missing.stand_in = stand_in
    built = experiment.build(config)
    trained = train.train(built, tmp_path / "run")
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    assert results["patterns"]["image"]["accuracy"] > 0.8


def test_a_crop_larger_than_the_images(photos):
    message = refusal(photo_config(photos, crop=20))
    assert message.startswith("config.inputs.image.preprocess.crop: 20 is larger than the images, 16 x 16")


def test_framing_is_that_of_the_config(photos):
    config = photo_config(photos)
    first = next(experiment.build(config).batches("test"))["inputs"]["image"]
    config.inputs.image.framing = "whole"
    whole = next(experiment.build(config).batches("test"))["inputs"]["image"]
    assert whole.shape == first.shape and not np.array_equal(whole, first)
    config.inputs.image.framing = "golden"
    assert refusal(config).startswith("config.inputs.image.framing: framing 'golden' is neither centre nor whole")
    config.inputs.image.framing, config.inputs.vector.framing = "", "whole"
    assert refusal(config) == "config.inputs.vector.framing: tabular/float32 takes no framing"
