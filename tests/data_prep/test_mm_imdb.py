import json
from collections import Counter

import numpy as np
import pytest
from sklearn.preprocessing import MultiLabelBinarizer

from tests.data_prep.prepared import contents, read_features
from tests.data_prep.raw_photos import GENRES, number_genres, write_mm_imdb, write_movie
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import mm_imdb
from umemma_jax.data_prep.build.assemble import NOTHING_LEFT
from umemma_jax.data_prep.build.prep_report import FILE_NAME
from umemma_jax.errors import UserError


@pytest.fixture
def raw(tmp_path):
    """A whole copy, to be damaged."""
    write_mm_imdb(tmp_path / "raw")
    return tmp_path / "raw"


def prepare(raw, out=None, **options):
    out = out or raw.parent / "out"
    mm_imdb.prepare(str(out), raw=str(raw), **options)
    return out


def report(out):
    return {kind: problem["entries"] for kind, problem in json.loads((out / FILE_NAME).read_text()).items()}


def genres_of(out, split):
    classes = open_dataset(out).info.classes
    return {example["id"]: {classes[label] for label in example["label"]} for example in read_features(out, split)}


def test_every_movie_arrives(raw):
    out = prepare(raw)
    info = open_dataset(out).info
    assert info.classes == GENRES
    assert info.multi_label
    listed = json.loads((raw / "split.json").read_text())
    for name, split in (("train", "train"), ("dev", "val"), ("test", "test")):
        examples = read_features(out, split)
        assert [example["id"] for example in examples] == listed[name]
        for example in examples:
            number = int(example["id"])
            assert example["text"] == f"A longer plot {number}."
            assert example["image"] == (raw / "dataset" / f"{example['id']}.jpeg").read_bytes()
            assert {GENRES[label] for label in example["label"]} == set(number_genres(number))
    assert report(out) == {}


def test_all_plots(raw):
    assert read_features(prepare(raw, text="all"), "train")[3]["text"] == "Plot 3.\nA longer plot 3."


def test_half_a_character(raw):
    (raw / "dataset" / "0000000.json").write_text('{"plot": ["cut \\ud83d"], "genres": ["War"]}')
    assert read_features(prepare(raw), "train")[0]["text"] == "cut ?"


def test_number_of_processes_changes_nothing(raw, tmp_path):
    assert contents(prepare(raw, tmp_path / "one")) == contents(prepare(raw, tmp_path / "two", processes=2))


def test_what_is_half_gone_is_kept_and_what_is_gone_is_dropped(raw):
    folder = raw / "dataset"
    (folder / "0000001.jpeg").unlink()
    write_movie(raw, "0000002", ["", "  "], ["War"])
    write_movie(raw, "0000003", [], ["War"])
    (folder / "0000003.jpeg").unlink()
    (folder / "0000004.json").unlink()
    (folder / "0000005.json").write_text(json.dumps({"genres": ["Drama"]}))
    write_movie(raw, "9999999", ["Not listed."], ["War"])
    out = prepare(raw)
    examples = {example["id"]: {"image", "text"} & example.keys() for example in read_features(out, "train")}
    assert examples.pop("0000001") == {"text"}
    assert examples.pop("0000002") == examples.pop("0000005") == {"image"}
    assert set(examples) == {f"{number:07d}" for number in (0, *range(6, 20))}
    assert all(both == {"image", "text"} for both in examples.values())
    assert report(out) == {
        mm_imdb.NO_POSTER: ["0000001", "0000003"],
        mm_imdb.NO_PLOT: ["0000002", "0000003", "0000005"],
        NOTHING_LEFT: ["0000003"],
        mm_imdb.NO_JSON: ["0000004 (train)"],
        mm_imdb.NOT_IN_SPLIT_FILE: ["9999999"],
    }


def test_rare_genres_go_and_movies_that_have_no_other(raw):
    write_movie(raw, "0000000", ["A short."], ["Short"])
    write_movie(raw, "0000001", ["A short."], ["Short", "Drama"])
    write_movie(raw, "0000025", ["Some news."], ["News", "War"])  # of the test split
    out = prepare(raw, min_count=3)
    assert open_dataset(out).info.classes == GENRES
    assert "0000000" not in genres_of(out, "train")
    assert genres_of(out, "train")["0000001"] == {"Drama"}
    assert genres_of(out, "test")["0000025"] == {"War"}
    assert report(out) == {
        mm_imdb.RARE_GENRE: ["News (0 training movies)", "Short (2 training movies)"],
        mm_imdb.NO_KEPT_GENRE: ["0000000 (Short)"],
    }
    everything = prepare(raw, raw.parent / "everything")
    assert open_dataset(everything).info.classes == (*GENRES[:2], "Short", "War")


def test_genres_by_name(raw):
    out = prepare(raw, genres=("War", "Drama"))
    assert open_dataset(out).info.classes == ("Drama", "War")
    assert genres_of(out, "train")["0000000"] == {"Drama"}


def remove_jsons(raw):
    for path in raw.glob("dataset/*.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda raw: (raw / "dataset/0000003.json").write_text("{"), "dataset/0000003.json: not JSON"),
        (lambda raw: (raw / "dataset/0000003.json").write_text("[]"), "field 'plot' is no list of strings"),
        (lambda raw: write_movie(raw, "0000003", ["A plot."], "War"), "0000003.json: field 'genres' is no list of"),
        (lambda raw: (raw / "split.json").write_text("{"), "split.json: not JSON"),
        (lambda raw: (raw / "split.json").write_text('{"train": ["1"], "valid": ["2"]}'), "unknown split 'valid'"),
        (lambda raw: (raw / "split.json").write_text('{"train": ["1"], "test": ["1"]}'), "listed in 'train' and in"),
        (lambda raw: (raw / "split.json").write_text('{"train": ["1"], "test": ["2"]}'), "none of its movies is in"),
        (lambda raw: (raw / "split.json").unlink(), "no split.json: point --raw at MM-IMDb"),
        (remove_jsons, "none of its movies is in"),
    ],
)
def test_one_line_and_nothing_left(raw, damage, complaint):
    damage(raw)
    with pytest.raises(UserError) as error:
        prepare(raw)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"genres": ("War", "Western")}, "no training movie is of 'Western'; there are: Comedy, Drama, War"),
        ({"min_count": 100}, "--min-count=100: no genre has so many"),
        ({"min_count": 1, "genres": ("War",)}, "give one of the two"),
    ],
)
def test_bad_choice(raw, options, complaint):
    with pytest.raises(UserError, match=complaint):
        prepare(raw, **options)


@pytest.mark.parametrize(("given", "where"), [("raw/dataset", "inside"), (".", "above")])
def test_wrong_folder(raw, tmp_path, given, where):
    with pytest.raises(UserError) as error:
        prepare(tmp_path / given, tmp_path / "out")
    assert f"lies {where} the raw data: give the folder" in str(error.value)
    assert f"--raw={tmp_path}/raw" in str(error.value)


@pytest.mark.slow
def test_real_products(tmp_path, shared_data):
    raw = shared_data / "product_labels_mmimdb_layout"
    out = prepare(raw, tmp_path / "out", processes=2)
    info = open_dataset(out).info
    assert {name: split.examples for name, split in info.splits.items()} == {"train": 2800, "val": 400, "test": 800}
    assert len(info.classes) == 33
    assert report(out) == {}
    listed = json.loads((raw / "split.json").read_text())
    for name, split in (("train", "train"), ("dev", "val"), ("test", "test")):
        genres = [json.loads((raw / "dataset" / f"{id}.json").read_text())["genres"] for id in listed[name]]
        expected = MultiLabelBinarizer(classes=info.classes).fit_transform(genres)
        np.testing.assert_array_equal(open_dataset(out).source(split).labels(), expected)
        assert info.splits[split].classes == tuple(expected.sum(axis=0))
    assert Counter(len(example.keys() & {"image", "text"}) for example in read_features(out, "test")) == {2: 800}
