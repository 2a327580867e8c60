"""Another dataset than that of the training: what is matched by name, and what is refused."""

import json

import numpy as np
import pytest

from tests.data.conftest import unsealed
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data.kinds import codec
from umemma_jax.data.pipeline import eval_batches
from umemma_jax.data.unseen import UnseenDataset
from umemma_jax.errors import UserError

TRAINED = Modality(
    "tabular", "float32", shape=(3,), columns=("age", "height", "weight"), mean=(1.0, 2.0, 3.0), std=(1.0,) * 3
)


def table(path, columns, rows, levels=None):
    """A dataset without labels whose rows are vectors, and one row that lacks them."""
    modality = Modality("tabular", "float32", shape=(len(rows[0]),), columns=columns, levels=levels)
    modalities = {"note": Modality("text", "utf-8"), "table": modality}
    with DatasetWriter(path, name="new", description="", classes=[], modalities=modalities) as writer:
        for number, row in enumerate(rows):
            writer.write("test", id=str(number), table=np.array(row, np.float32), note="x")
        writer.write("test", id="none", note="x")
    return open_dataset(path)


def batch(dataset):
    return next(eval_batches(dataset, "test", ("table",), len(dataset.source("test"))))


def test_columns_are_matched_by_name(tmp_path):
    dataset = table(tmp_path / "new", ("weight", "extra", "age"), [[3, 9, 1], [np.nan, 9, 1], [np.nan, 9, np.nan]])
    unseen = UnseenDataset(dataset, {"table": TRAINED})
    found = batch(unseen)
    np.testing.assert_array_equal(found["inputs"]["table"][:2], [[1, np.nan, 3], [1, np.nan, np.nan]])
    assert found["present"].tolist() == [[True], [True], [False], [False]]  # of the third only what is ignored is known
    assert unseen.source("test").ids() == ["0", "1", "2", "none"]
    where = f"{tmp_path}/new: modality 'table': "
    assert unseen.notes == [
        f"{where}lacks height, which count as missing values",
        f"{where}extra ignored, the model was not trained on them",
    ]


def test_the_same_columns_are_read_as_they_are(tmp_path):
    unseen = UnseenDataset(table(tmp_path / "new", TRAINED.columns, [[1, 2, 3]]), {"table": TRAINED})
    np.testing.assert_array_equal(batch(unseen)["inputs"]["table"][0], [1, 2, 3])
    assert unseen.notes == []


def test_without_names_the_number_of_columns_counts(tmp_path):
    trained = Modality("tabular", "float32", shape=(3,), mean=(0.0,) * 3, std=(1.0,) * 3)
    unseen = UnseenDataset(table(tmp_path / "new", None, [[1, 2, 3]]), {"table": trained})
    np.testing.assert_array_equal(batch(unseen)["inputs"]["table"][0], [1, 2, 3])


@pytest.mark.parametrize(
    ("columns", "trained", "message"),
    [
        (("a", "b", "c"), TRAINED, "none of the columns that the model was trained on, age, height, weight; it has: a"),
        (None, TRAINED, "this dataset does not name its columns, the training's are age, height, weight"),
        (("a", "b", "c"), Modality("tabular", "float32", shape=(3,)), "the training's dataset does not name its col"),
        (None, Modality("tabular", "float32", shape=(4,)), r"shape is \(3,\), the model was trained on \(4,\)"),
    ],
)
def test_columns_that_cannot_be_matched(tmp_path, columns, trained, message):
    dataset = table(tmp_path / "new", columns, [[1, 2, 3]])
    with pytest.raises(UserError, match=message):
        UnseenDataset(dataset, {"table": trained})


def test_older_datasets_name_their_columns_in_the_command_that_made_them(tmp_path):
    dataset = unsealed(table(tmp_path / "new", ("weight", "height", "age"), [[3, 2, 1]]))
    file = dataset.path / "dataset.json"
    content = json.loads(file.read_text())
    columns = content["modalities"]["table"].pop("columns")
    content["source"]["modalities"] = [
        {"kind": "text", "name": "note", "columns": ["note"]},
        {"kind": "tabular", "name": "table", "columns": columns},
    ]
    file.write_text(json.dumps(content))
    unseen = UnseenDataset(open_dataset(dataset.path), {"table": TRAINED})
    np.testing.assert_array_equal(batch(unseen)["inputs"]["table"][0], [1, 2, 3])


def test_videos_may_have_more_frames_than_those_of_the_training(tmp_path):
    frame = codec(Modality("image", "jpeg")).from_mean(np.full((64, 64, 3), 99.0))
    video = Modality("video", "jpeg", frame_rate=1.0)
    lengths = (2, 5)
    with DatasetWriter(tmp_path / "v", name="v", description="", classes=[], modalities={"video": video}) as writer:
        for length in lengths:
            writer.write("test", id=str(length), video=[frame] * length)
    trained = Modality("video", "jpeg", frame_rate=1.0, max_frames=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    unseen = UnseenDataset(open_dataset(tmp_path / "v"), {"video": trained})
    found = next(eval_batches(unseen, "test", ("video",), 2, lengths={"video": 8}))["inputs"]["video"]
    assert found["frames"].shape == (2, 5, 8, 8, 3) and found["count"].tolist() == list(lengths)
    assert [found["frames"][1, k].any() for k in range(5)] == [True] * 5


def test_sound_that_is_longer_is_told(tmp_path):
    sound = Modality("audio", "pcm_s16le", sample_rate=100)
    with DatasetWriter(tmp_path / "s", name="s", description="", classes=[], modalities={"audio": sound}) as writer:
        writer.write("test", id="0", audio=np.ones(250, np.int16))
    trained = Modality("audio", "pcm_s16le", sample_rate=100, max_samples=100, mean=(0.0,), std=(1.0,))
    (note,) = UnseenDataset(open_dataset(tmp_path / "s"), {"audio": trained}).notes
    assert note.endswith("up to 2.5 s long, the training's up to 1 s: the model may cut it")


CATEGORIES = Modality(
    "tabular",
    "float32",
    shape=(3,),
    columns=("age", "colour", "size"),
    levels={"colour": {"red": 9, "blue": 3}, "size": {"S": 5, "M": 4, "L": 3}},
    mean=(1.0, 0.0, 0.0),
    std=(1.0, 0.0, 0.0),
)


def test_levels_are_matched_by_name(tmp_path):
    """Another order, levels that only one of them has, one that preparation did not know, and a missing one."""
    here = {"colour": {"blue": 1, "teal": 1, "red": 1}, "size": {"M": 2}}
    rows = [[0, 0, 7], [1, 0, 7], [2, -1, 7], [-1, np.nan, 7]]
    dataset = table(tmp_path / "new", ("colour", "size", "age"), rows, levels=here)
    unseen = UnseenDataset(dataset, {"table": CATEGORIES})
    expected = [[7, 1, 1], [7, -1, 1], [7, 0, -1], [7, -1, np.nan]]
    np.testing.assert_array_equal(batch(unseen)["inputs"]["table"][:4], expected)
    where = f"{tmp_path}/new: modality 'table': "
    assert unseen.notes == [f"{where}colour has 'teal', which the model was not trained on and takes as unseen"]


def test_a_category_that_the_dataset_lacks_is_missing(tmp_path):
    unseen = UnseenDataset(table(tmp_path / "new", ("age",), [[7]]), {"table": CATEGORIES})
    np.testing.assert_array_equal(batch(unseen)["inputs"]["table"][0], [7, np.nan, np.nan])


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (None, "column 'colour' is no category, in the training it was one"),
        ({"age": {"7": 1}, "colour": {}, "size": {}}, "column 'age' is a category, in the training it was none"),
    ],
)
def test_columns_that_became_of_another_type(tmp_path, levels, message):
    dataset = table(tmp_path / "new", CATEGORIES.columns, [[0, np.nan, np.nan]], levels=levels)
    with pytest.raises(UserError, match=message):
        UnseenDataset(dataset, {"table": CATEGORIES})
