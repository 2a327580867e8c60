"""The shipped recipes: every one loads and passes the checks, and the one for own data trains on what it is given."""

import shutil

import jax
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from tests import small_run
from umemma_jax import config as config_lib
from umemma_jax import experiment, presets
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data_prep import ave, rendered_clips, table
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.methods import METHODS, has_loss
from umemma_jax.training import stages, train

OF_SWITCHES = [name for name in METHODS if not has_loss(METHODS[name])]
CLIP_ENCODERS = ("resnets", "resnet_audionet", "vit_ast", "small")


@pytest.mark.parametrize("method", [*OF_SWITCHES, "simultaneous", "tests.own_method"])
@pytest.mark.parametrize("name", ["quickstart", "av_mnist", "food101", "mm_imdb", "ave", "kinetics_sound"])
def test_recipes_of_every_method(name, method):
    config = config_lib.load(f"configs/{name}.py:{method}")
    config_lib.check(config)
    assert config_lib.method_name(config) == method


@pytest.mark.parametrize("name", ["food101", "mm_imdb"])
def test_small_recipes(name):
    config = config_lib.load(f"configs/{name}.py:small,late_fusion")
    config_lib.check(config)
    assert config_lib.method_name(config) == "late_fusion"
    assert not config.inputs.image.encoder.pretrained
    with pytest.raises(UserError, match="config argument 'tiny': unknown"):
        config_lib.load(f"configs/{name}.py:tiny")


@pytest.mark.parametrize("encoders", CLIP_ENCODERS)
@pytest.mark.parametrize("name", ["ave", "kinetics_sound"])
def test_clip_recipes_with_every_pair_of_encoders(name, encoders):
    config = config_lib.load(f"configs/{name}.py:{encoders},late_fusion")
    config_lib.check(config)
    assert config_lib.method_name(config) == "late_fusion"
    assert config.data.prep.startswith(f"umemma_jax.data_prep.{name} ")
    with pytest.raises(UserError, match="config argument 'tiny': unknown"):
        config_lib.load(f"configs/{name}.py:{encoders},tiny")


def test_clip_recipes_are_of_two_resnets_unless_told_otherwise():
    for name in ("ave", "kinetics_sound"):
        for method in OF_SWITCHES:
            one, other = (config_lib.load(f"configs/{name}.py:{word}{method}") for word in ("", "resnets,"))
            assert one == other


def brief(config):
    config.unimodal.epochs = config.fusion.epochs = 2
    config.evaluation.seeds, config.evaluation.batch_size = 1, 16
    config_lib.check(config)
    return config


def run(config, workdir):
    built = experiment.build(config)
    trained = train.train(built, workdir)
    return evaluate.evaluate(built, trained.unimodal, trained.fusion)[0]


@pytest.mark.usefixtures("one_device")
def test_own_data_of_three_kinds(tmp_path):
    small_run.write_dataset(tmp_path / "data")
    results = run(brief(config_lib.load(f"configs/own_data.py:{tmp_path / 'data'}")), tmp_path / "run")
    assert len(results["patterns"]) == 7


@pytest.mark.usefixtures("one_device")
def test_own_data_from_a_table(tmp_path, monkeypatch):
    """Words, numbers, a category and a date that tell the class, in a CSV file with gaps."""
    names = ("apple", "pear", "plum")
    lines = ["title,weight,length,colour,picked,fruit"]
    for number in range(90):
        label = number % 3
        title = "" if number % 10 == 0 else f"a fine {names[label]} number {number % 7}"
        weight = "" if number % 7 == 0 else label + number % 5 / 10
        colour = ("", "red", "green", "blue")[label if number % 4 else 3]
        lines.append(f"{title},{weight},{2 - label},{colour},2024-0{1 + 3 * label}-01,{names[label]}")
    (tmp_path / "fruit.csv").write_text("\n".join(lines))
    arguments = ["--text=title", "--tabular=size=weight,leng*,colour:category,picked:date", "--label=fruit"]
    arguments.append(f"--out={tmp_path / 'data'}")
    monkeypatch.setattr("sys.argv", ["table", f"--table={tmp_path / 'fruit.csv'}", *arguments])
    table.main()
    results = run(brief(config_lib.load(f"configs/own_data.py:{tmp_path / 'data'},ume_mma")), tmp_path / "run")
    assert results["naturally_missing"]["text"] > 0
    assert results["patterns"]["text+size"]["accuracy"] > 0.5


def test_own_data_keeps_what_99_in_100_training_texts_have(tmp_path):
    def text(texts):
        modalities = {"text": Modality("text", "utf-8"), "other": Modality("text", "utf-8")}
        with DatasetWriter(
            tmp_path, overwrite=True, name="t", description="", classes=["a"], modalities=modalities
        ) as writer:
            for number, value in enumerate(texts):
                writer.write("train", id=str(number), label=0, text=value, other="b")
        return config_lib.load(f"configs/own_data.py:{tmp_path}").inputs.text

    words = " ".join(map(str, range(100, 120)))
    many = len(set(CountVectorizer(ngram_range=(1, 2)).build_analyzer()(words)))
    many += len(set(CountVectorizer(analyzer="char_wb", ngram_range=(3, 5)).build_analyzer()(words)))
    assert 32 < many <= text([words] * 49 + [None]).length < many + 32
    assert text(["one"] * 199 + [words]).length == 32
    assert text([" ".join(map(str, range(1000)))]).length == presets.MOST_NGRAMS


def test_own_data_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"python -m data_prep\.table"):
        config_lib.load(f"configs/own_data.py:{tmp_path / 'nothing'}")


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, shared_data):
    """60 clips of digits in the layout of AVE."""
    raw = tmp_path_factory.mktemp("rendered") / "raw"
    sources = {"mnist": str(shared_data / "mnist"), "fsdd": str(shared_data / "fsdd")}
    rendered_clips.prepare(str(raw), **sources, clips=60)
    return raw


def input_shapes(config):
    """Modality -> shape of what its encoder gets of one example."""
    built = experiment.build(config)
    batch = next(iter(stages.training_batches(built, "fusion")))["inputs"]
    return {t.name: jax.eval_shape(t.preprocess, batch[t.name]).shape[1:] for t in built.model.towers}


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_clip_recipes_on_rendered_clips(tmp_path, rendered):
    """Every pair of encoders fits the data and gets what its recipe says; the small one trains to the end."""
    data = str(tmp_path / "data")
    ave.prepare(data, raw=str(rendered))
    expected = {
        "resnets": {"video": (3, 224, 224, 3), "audio": (299, 257)},
        "resnet_audionet": {"video": (1, 224, 224, 3), "audio": (65535,)},
        "vit_ast": {"video": (3, 224, 224, 3), "audio": (1024, 128)},
    }
    for encoders, shapes in expected.items():
        config = config_lib.load(f"configs/ave.py:{encoders}")
        config.data.dir, config.data.batch_size = data, 16
        for name in config.modalities:
            config.inputs[name].encoder.pretrained = ""
        assert input_shapes(config) == shapes

    config = brief(config_lib.load("configs/ave.py:small"))
    config.data.dir, config.data.batch_size = data, 8
    config.unimodal.epochs = config.fusion.epochs = 1
    results = run(config, tmp_path / "run")
    assert set(results["patterns"]) == {"video+audio", "video", "audio"}
    assert np.isfinite([pattern["accuracy"] for pattern in results["patterns"].values()]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_clip_recipes_on_seconds(tmp_path, rendered):
    """As the recipes are: what they take beyond a second is padding. Or with no more than there is."""
    data = str(tmp_path / "data")
    ave.prepare(data, raw=str(rendered), clip="segment")
    expected = {
        "resnets": ((3, 224, 224, 3), (299, 257), (98, 257)),
        "resnet_audionet": ((1, 224, 224, 3), (65535,), (16000,)),
        "vit_ast": ((3, 224, 224, 3), (1024, 128), (1024, 128)),
    }
    for encoders, (video, audio, short_audio) in expected.items():
        config = config_lib.load(f"configs/ave.py:{encoders}")
        config.data.dir, config.data.batch_size = data, 16
        for name in config.modalities:
            config.inputs[name].encoder.pretrained = ""
        assert input_shapes(config) == {"video": video, "audio": audio}
        config.inputs.video.preprocess.frames, config.inputs.audio.length = 1, 16000
        assert input_shapes(config) == {"video": (1, *video[1:]), "audio": short_audio}

    config = config_lib.load("configs/ave.py:small")
    config.data.dir, config.data.batch_size = data, 8
    assert input_shapes(config) == {"video": (3, 48, 48, 3), "audio": (100, 40)}


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_own_clips_with_titles(tmp_path, rendered, monkeypatch):
    """Frames, sound and title of a clip are three modalities, by the line that data_prep.rendered_clips gives."""
    rendered = shutil.copytree(rendered, tmp_path / "raw")
    min((rendered / "AVE").iterdir()).unlink()
    columns = ["--video=video", "--audio=video", "--text=title", "--label=digit", "--split=split"]
    arguments = [f"--table={rendered}/clips.csv", *columns, f"--out={tmp_path / 'data'}"]
    monkeypatch.setattr("sys.argv", ["table", *arguments])
    table.main()
    splits = open_dataset(tmp_path / "data").info.splits
    assert sum(split.examples for split in splits.values()) == 60
    assert sum(split.present["video"] for split in splits.values()) == 59
    config = brief(config_lib.load(f"configs/own_data.py:{tmp_path / 'data'}"))
    config.unimodal.epochs = 6
    config.inputs.video.length, config.inputs.video.preprocess.shift, config.inputs.audio.length = 16, 1.0, 4000
    patterns = run(config, tmp_path / "run")["patterns"]
    assert len(patterns) == 7
    assert patterns["text"]["accuracy"] > 0.4  # of 10 digits; 7 of 10 titles name it
