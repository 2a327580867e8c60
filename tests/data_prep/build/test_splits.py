import json

import pytest

from umemma_jax.data_prep.build.splits import SPLITS, read_split_file
from umemma_jax.errors import UserError


def read(tmp_path, content):
    (tmp_path / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_split_file(tmp_path / "split.json", SPLITS, required=("train", "test"))


def test_in_the_order_of_splits_and_ids(tmp_path):
    assert list(read(tmp_path, {"test": ["c", "a"], "train": ["b"]}).items()) == [
        ("train", ["b"]),
        ("test", ["c", "a"]),
    ]


def test_real_files(shared_data):
    food = read_split_file(shared_data / "annotations/UPMC-Food101/split.json", SPLITS, ("train", "val", "test"))
    assert {split: len(ids) for split, ids in food.items()} == {"train": 61142, "val": 6846, "test": 22716}
    movies = read_split_file(shared_data / "annotations/MM-IMDB/split.json", ("train", "dev", "test"), ("train",))
    assert {split: len(ids) for split, ids in movies.items()} == {"train": 15552, "dev": 2608, "test": 7799}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, r"not JSON \(nested too deeply\)"),
        ('{"train": ["a"], "test": ["b"], "train": []}', r"not JSON \('train' comes 2 times\)"),
        ([], "not a JSON object"),
        ({"train": [1], "test": ["a"]}, "not a JSON object"),
        (
            {"train": ["a"], "test": ["b"], "holdout": []},
            "unknown split 'holdout': rename it to one of train, val, test",
        ),
        ({"train": ["a"], "test": []}, "no examples for 'test'"),
        ({"train": ["a", "a"], "test": ["b"]}, "'a' is listed in 'train' and in 'train'"),
    ],
)
def test_bad_file(tmp_path, content, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        read(tmp_path, content)
    assert str(tmp_path / "split.json") in str(error.value)
