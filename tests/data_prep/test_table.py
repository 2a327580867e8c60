import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_prep.prepared import contents, read_features
from tests.data_prep.raw_clips import clock, numbers_of, read_clips, tone, write_clip, write_video
from tests.data_prep.raw_files import wav_bytes
from tests.data_prep.raw_photos import photo_bytes
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import table
from umemma_jax.data_prep.build.assemble import NOTHING_LEFT, UNSEEN
from umemma_jax.data_prep.build.labels import NO_LABEL
from umemma_jax.data_prep.build.prep_report import DAMAGED, FILE_NAME, UNREADABLE
from umemma_jax.data_prep.build.rows import short
from umemma_jax.data_prep.build.splitting import NO_SPLIT
from umemma_jax.data_prep.build.targets import NO_TARGET
from umemma_jax.data_prep.raw import columns
from umemma_jax.data_prep.raw.clips import CUT, NO_PICTURE, NO_SOUND
from umemma_jax.data_prep.raw.columns import Column
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PCM = np.arange(-50, 50, dtype="<i2").tobytes()
ALL = (
    Column("image", "image", ("photo",)),
    Column("audio", "audio", ("clip",)),
    Column("text", "text", ("title",)),
    Column("tabular", "tabular", ("height", "weight")),
)


@pytest.fixture
def rows(tmp_path):
    """30 rows of everything, three classes in turn; the files are there."""
    (tmp_path / "data").mkdir()
    rows = []
    for number in range(30):
        (tmp_path / "data" / f"{number}.jpg").write_bytes(photo_bytes(number))
        (tmp_path / "data" / f"{number}.wav").write_bytes(wav_bytes(PCM))
        rows.append(
            {
                "photo": f"data/{number}.jpg",
                "clip": f"data/{number}.wav",
                "title": f"Number {number}",
                "height": number / 2,
                "weight": -number,
                "kind": "abc"[number % 3],
                "part": "train" if number < 24 else "dev" if number < 27 else "Test",
            }
        )
    return rows


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(sys.modules["pyarrow"].Table.from_pylist(rows), path)
    return path


def prepare(path, out=None, **options):
    out = out or path.parent / "out"
    table.prepare(str(out), table=str(path), **{"modalities": ALL, "label": "kind", "rate": 8000, **options})
    return out


def report(out):
    return {kind: problem["entries"] for kind, problem in json.loads((out / FILE_NAME).read_text()).items()}


@pytest.mark.parametrize(("form", "write"), [("csv", write_csv), ("jsonl", write_jsonl), ("parquet", write_parquet)])
def test_everything_arrives(tmp_path, rows, form, write):
    out = prepare(write(tmp_path / f"mine.{form}", rows), split="part")
    info = open_dataset(out).info
    assert (info.name, info.classes, info.multi_label) == ("mine", ("a", "b", "c"), False)
    assert list(info.modalities) == ["image", "audio", "text", "tabular"]
    examples = [example for split in ("train", "val", "test") for example in read_features(out, split)]
    assert [info.splits[split].examples for split in ("train", "val", "test")] == [24, 3, 3]
    for number, (row, example) in enumerate(zip(rows, examples, strict=True)):
        assert example["id"] == f"{number:07d}"
        assert info.classes[example["label"][0]] == row["kind"]
        assert example["image"] == photo_bytes(number)
        assert example["audio"] == PCM
        assert example["text"] == row["title"]
        assert np.frombuffer(example["tabular"], "<f4").tolist() == [row["height"], row["weight"]]
    assert report(out) == {}


def test_columns_are_inferred(tmp_path, rows):
    """Without a modality all columns are taken for what they hold, and it is said why."""
    out = tmp_path / "out"
    path = write_csv(tmp_path / "mine.csv", rows)
    given = ["--type=title=text", "--leave-out=weight"]
    result = run(f"--table={path}", "--label=kind", "--split=part", *given, f"--out={out}", "--rate=8000")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:8] == [
        "column  type    modality  filled  why",
        "photo   image   photo      100 %  image files, as 'data/0.jpg'",
        "clip    audio   clip       100 %  audio files, as 'data/0.wav'",
        "title   text    title      100 %  as you say",
        "height  number  tabular    100 %  numbers from 0 to 14.5",
        "weight  -       -          100 %  as you say",
        "kind    -       -          100 %  is the label",
        "part    -       -          100 %  is the split",
    ]
    info = open_dataset(out).info
    assert {name: modality.kind for name, modality in info.modalities.items()} == {
        "tabular": "tabular",
        "photo": "image",
        "clip": "audio",
        "title": "text",
    }
    first, *_ = read_features(out, "train")
    assert (first["photo"], first["clip"], first["title"]) == (photo_bytes(0), PCM, "Number 0")
    assert info.source["types"] == {"title": "text"}


def test_columns_by_pattern(tmp_path, rows):
    """Several tabular modalities; the label is an input of none."""
    for number, row in enumerate(rows):
        row |= {"lab_na": number / 4, "lab_k": -number / 4, "lab_kind": "ab"[number % 2], "lab*": 5}
    out = tmp_path / "out"
    given = ["--tabular=vitals=weight,h?ight", "--tabular=labs=lab_[kn]*,lab*", "--label=lab_kind"]
    result = run(f"--table={write_csv(tmp_path / 'mine.csv', rows)}", *given, f"--out={out}")
    assert result.returncode == 0, result.stderr
    modalities = open_dataset(out).info.modalities
    assert {name: modality.columns for name, modality in modalities.items()} == {
        "vitals": ("weight", "height"),
        "labs": ("lab_na", "lab_k", "lab*"),
    }


def test_anything_can_be_empty(tmp_path, rows):
    rows[0]["photo"] = rows[1]["clip"] = rows[2]["weight"] = ""
    rows[3]["title"] = " "
    rows[4]["kind"] = ""
    rows[5]["part"] = ""
    rows[6] |= {"photo": "", "clip": "", "title": "", "height": "", "weight": "NaN"}
    rows[7]["photo"] = "data/absent.jpg"
    rows[8]["photo"] = "data"
    (tmp_path / "data" / "9.wav").write_bytes(b"RIFF")
    path = write_csv(tmp_path / "mine.csv", rows)
    out = prepare(path, split="part")
    present = {int(e["id"]): e.keys() - {"id", "label"} for e in read_features(out, "train")}
    everything = {"image", "audio", "text", "tabular"}
    missing = {number: everything - names for number, names in present.items() if names != everything}
    assert missing == {
        0: {"image"},
        1: {"audio"},
        3: {"text"},
        7: {"image"},
        8: {"image"},
        9: {"audio"},
    }
    assert sorted(set(range(24)) - present.keys()) == [4, 5, 6]
    assert report(out) == {
        NO_LABEL: [f"{path}, line 6"],
        NO_SPLIT: [f"{path}, line 7"],
        "missing number in column 'weight' (kept as missing)": [f"{path}, line 4"],
        columns.NO_FILE: [f"{tmp_path}/data/absent.jpg ({path}, line 9)"],
        UNREADABLE: [
            f"{tmp_path}/data: a directory instead of a file",
            f"{tmp_path}/data/9.wav: not a video or sound file: Invalid data found when processing input",
        ],
        NOTHING_LEFT: ["0000006"],
    }


@pytest.mark.parametrize("as_list", [False, True])
def test_several_labels(tmp_path, rows, as_list):
    for number, row in enumerate(rows):
        kinds = ["a", "b", "c"][: number % 3 + 1]
        row["kind"] = kinds if as_list else "| ".join(kinds)
    path = write_jsonl(tmp_path / "mine.jsonl", rows) if as_list else write_csv(tmp_path / "mine.csv", rows)
    out = prepare(path, split="part", label_separator=None if as_list else "|")
    assert open_dataset(out).info.multi_label
    labels = {int(example["id"]): example["label"] for example in read_features(out, "train")}
    assert labels == {number: [0, 1, 2][: number % 3 + 1] for number in range(24)}


def test_no_label_at_all_is_an_empty_list(tmp_path, rows):
    for row in rows:
        row["kind"] = [row["kind"]]
    rows[0]["kind"] = []
    rows[1]["kind"] = None
    examples = read_features(prepare(write_jsonl(tmp_path / "mine.jsonl", rows), split="part"), "train")
    assert [(example["id"], example["label"]) for example in examples[:2]] == [("0000000", []), ("0000002", [2])]


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path, rows):
    for number, row in enumerate(rows):
        row["kind"] = 9 + number % 3
    for path in (write_csv(tmp_path / "a.csv", rows), write_jsonl(tmp_path / "b.jsonl", rows)):
        assert open_dataset(prepare(path, tmp_path / path.stem, split="part")).info.classes == ("9", "10", "11")


def test_several_modalities_of_a_kind_and_vectors_in_one_column(tmp_path, rows):
    for row in rows:
        row["embedding"] = [row["height"]] * 5
    modalities = (
        Column("tabular", "vector", ("embedding",)),
        Column("text", "second", ("part",)),
        Column("text", "first", ("title",)),
    )
    out = prepare(write_jsonl(tmp_path / "mine.jsonl", rows), modalities=modalities)
    assert list(open_dataset(out).info.modalities) == ["vector", "second", "first"]
    assert open_dataset(out).info.modalities["vector"].shape == (5,)
    for example in read_features(out, "train"):
        row = rows[int(example["id"])]
        assert (example["first"], example["second"]) == (row["title"], row["part"])
        assert np.frombuffer(example["vector"], "<f4").tolist() == row["embedding"]


def test_missing_numbers_are_kept_as_such(tmp_path, rows):
    """A tenth of ten columns, and a column that is always empty: no row is lost, and the report counts the holes."""
    draw = np.random.default_rng(0)
    names = [f"x{number}" for number in range(10)]
    values = draw.normal(size=(30, 10)).astype(np.float32)
    values[draw.random(values.shape) < 0.1] = np.nan
    marks = ["", "NA", "n/a", "NaN", "null", "None", " "]
    for row, numbers in zip(rows, values, strict=True):
        row["empty"] = ""
        for name, number in zip(names, numbers, strict=True):
            row[name] = marks[draw.integers(len(marks))] if np.isnan(number) else repr(float(number))
    path = write_csv(tmp_path / "mine.csv", rows)
    out = prepare(path, modalities=(Column("tabular", "x", (*names, "empty")),), split="part")
    examples = [example for split in ("train", "val", "test") for example in read_features(out, split)]
    found = np.stack([np.frombuffer(example["x"], "<f4") for example in examples])
    np.testing.assert_array_equal(found, np.pad(values, ((0, 0), (0, 1)), constant_values=np.nan))
    modality = open_dataset(out).info.modalities["x"]
    assert modality.columns == (*names, "empty")
    np.testing.assert_allclose(modality.mean[:-1], np.nanmean(values[:24], axis=0), rtol=1e-5)
    assert modality.missing == (*np.isnan(values[:24]).sum(axis=0), 24)
    assert (modality.mean[-1], modality.std[-1]) == (0, 0)
    counts = zip(names, np.isnan(values).sum(axis=0), strict=True)
    holes = {f"missing number in column {name!r} (kept as missing)": count for name, count in counts}
    holes["missing number in column 'empty' (kept as missing)"] = 30
    assert {kind: len(entries) for kind, entries in report(out).items()} == {k: n for k, n in holes.items() if n}


def test_a_missing_number_in_a_list(tmp_path, rows):
    for number, row in enumerate(rows):
        row["embedding"] = [None, None] if number == 4 else [number, None if number == 7 else 1.5]
    out = prepare(write_jsonl(tmp_path / "a.jsonl", rows), modalities=(Column("tabular", "v", ("embedding",)),))
    found = {e["id"]: np.frombuffer(e["v"], "<f4").tolist() for e in read_features(out, "train")}
    assert all(np.isnan(vector[1]) == (id == "0000007") for id, vector in found.items())
    assert open_dataset(out).info.modalities["v"].columns is None
    kinds = {"missing number in column 'embedding[1]' (kept as missing)", NOTHING_LEFT}
    assert report(out).keys() == kinds


def test_a_class_that_training_never_sees_can_be_dropped(tmp_path, rows):
    rows[29]["kind"] = "d"
    path = write_csv(tmp_path / "mine.csv", rows)
    out = prepare(path, modalities=ALL[2:3], split="part", drop_unseen=True)
    info = open_dataset(out).info
    assert (info.classes, info.splits["test"].classes) == (("a", "b", "c"), (1, 1, 0))
    assert report(out) == {UNSEEN: [f"{path}, line 31: 'd'"]}


def test_wrong_paths_are_shown_with_what_is_like_them(tmp_path, rows):
    for number, row in enumerate(rows):
        row["photo"] = (f"{number}.jpg", f"data\\{number}.jpg", f"Data/{number}.JPEG")[number % 3]
    path = write_csv(tmp_path / "mine.csv", rows)
    with pytest.raises(UserError) as error:
        prepare(path)
    shown = [
        f"{short(str(tmp_path / row['photo']))} (there is {tmp_path}/data/{n}.jpg)" for n, row in enumerate(rows[:3])
    ]
    assert str(error.value) == f"--image=photo: none of the 30 files exists: {', '.join(shown)}"


def test_a_path_that_is_wrong_by_its_case_alone(tmp_path, rows):
    rows[3]["photo"] = "data/3.JPG"
    path = write_csv(tmp_path / "mine.csv", rows)
    entry = f"{tmp_path}/data/3.JPG ({path}, line 5): there is {tmp_path}/data/3.jpg"
    assert report(prepare(path, modalities=ALL[:1])) == {columns.NO_FILE: [entry], NOTHING_LEFT: ["0000003"]}


# --- targets ----------------------------------------------------------------------------------------------------------


TEXT = (Column("text", "text", ("title",)),)


def test_numbers_are_predicted_as_such(tmp_path, rows):
    for number, row in enumerate(rows):
        row["price"] = "" if number == 5 else str(number**2 / 10)
    out = prepare(write_csv(tmp_path / "mine.csv", rows), modalities=TEXT, label="price")
    dataset = open_dataset(out)
    (target,) = dataset.info.targets
    train = dataset.source("train").labels()
    assert (dataset.info.classes, target.name) == ((), "price")
    assert (target.mean, target.std) == (pytest.approx(train.mean()), pytest.approx(train.std()))
    assert sum(split.examples for split in dataset.info.splits.values()) == len(rows) - 1
    assert report(out)[NO_TARGET] == [f"{tmp_path}/mine.csv, line 7: price"]
    assert any("--target=classes" in kind for kind in report(out))


def test_a_rating_can_be_predicted_as_a_number(tmp_path, rows):
    for number, row in enumerate(rows):
        row |= {"stars": str(number % 5 + 1), "views": str(number)}
    path = write_csv(tmp_path / "mine.csv", rows)
    assert open_dataset(prepare(path, modalities=TEXT, label="stars")).info.classes == ("1", "2", "3", "4", "5")
    arguments = ["--text=title", "--label=stars,views", "--overwrite", f"--table={path}", f"--out={tmp_path}/out"]
    command = [sys.executable, "-m", "data_prep.table", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "target stars (" in result.stdout and "target views (" in result.stdout
    assert [target.name for target in open_dataset(tmp_path / "out").info.targets] == ["stars", "views"]


# --- without labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "write"), [("csv", write_csv), ("jsonl", write_jsonl)])
def test_without_label_every_row_is_test(tmp_path, rows, form, write):
    rows = [{name: value for name, value in row.items() if name not in ("kind", "part")} for row in rows]
    out = prepare(write(tmp_path / f"new.{form}", rows), label=None)
    info = open_dataset(out).info
    assert (info.classes, info.multi_label, list(info.splits)) == ((), False, ["test"])
    assert open_dataset(out).source("test").ids() == [f"{number:07d}" for number in range(30)]
    for number, example in enumerate(read_features(out, "test")):
        assert example["label"] is None
        assert (example["image"], example["audio"]) == (photo_bytes(number), PCM)
        assert example["text"] == rows[number]["title"]
        assert np.frombuffer(example["tabular"], "<f4").tolist() == [number / 2, -number]
    assert report(out) == {}


def test_without_label_the_column_of_the_split_counts_and_that_of_the_label_does_not(tmp_path, rows):
    rows[0]["kind"] = rows[1]["part"] = ""
    path = write_csv(tmp_path / "mine.csv", rows)
    out = prepare(path, label=None, split="part", id="title")
    ids = {split: open_dataset(out).source(split).ids() for split in ("train", "val", "test")}
    titles = [row["title"] for row in rows]
    assert ids == {"train": [titles[0], *titles[2:24]], "val": titles[24:27], "test": titles[27:]}
    assert report(out) == {NO_SPLIT: [f"{path}, line 3"]}


def test_nothing_left_of_a_table_without_labels(tmp_path, rows):
    for row in rows:
        row["title"] = ""
    with pytest.raises(UserError, match="--text=title: none of the 30 rows has a value: leave it out"):
        prepare(write_csv(tmp_path / "new.csv", rows), modalities=(Column("text", "text", ("title",)),), label=None)
    assert not (tmp_path / "out").exists()


def test_command_without_label(tmp_path, rows):
    path = write_csv(tmp_path / "new.csv", rows)
    result = run(f"--table={path}", "--image=photo", "--text=title", f"--out={tmp_path}/out")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"new: {tmp_path}/out, no labels\n" in result.stdout
    info = open_dataset(tmp_path / "out").info
    assert (info.classes, info.splits["test"].present) == ((), {"image": 30, "text": 30})
    assert info.source["label"] is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--split=0.8,0.1,0.1"], "--split=0.8,0.1,0.1: shares are drawn class by class, which takes --label: leave"),
        (["--label="], "no column ''; it has: photo"),
    ],
)
def test_bad_arguments_without_label(tmp_path, rows, arguments, complaint):
    path = write_csv(tmp_path / "new.csv", rows)
    assert complaint in refusal(f"--table={path}", "--text=title", *arguments, out=tmp_path / "out")


# --- drawn splits -----------------------------------------------------------------------------------------------------


def test_shares_class_by_class(tmp_path, rows):
    path = write_csv(tmp_path / "mine.csv", rows)
    first, again, other = (prepare(path, tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    info = open_dataset(first).info
    assert {split: info.splits[split].classes for split in info.splits} == {
        "train": (8, 8, 8),
        "val": (1, 1, 1),
        "test": (1, 1, 1),
    }
    assert contents(first) == contents(again)
    ids = [{example["id"] for example in read_features(out, "train")} for out in (first, other)]
    assert ids[0] != ids[1]


def test_groups_never_cross_splits(tmp_path, rows):
    for number, row in enumerate(rows):
        row["patient"] = f"p{number // 3}"
    path = write_csv(tmp_path / "mine.csv", rows)
    texts = (Column("text", "text", ("title",)),)
    dataset = open_dataset(prepare(path, modalities=texts, groups="patient", split="0.6,0.2,0.2"))
    patients = {f"{number:07d}": row["patient"] for number, row in enumerate(rows)}
    found = {name: {patients[id] for id in dataset.source(name).ids()} for name in dataset.info.splits}
    assert {name: len(group) for name, group in found.items()} == {"train": 6, "val": 2, "test": 2}
    assert len(set.union(*found.values())) == 10
    with pytest.raises(UserError, match="with the same value of 'kind' is of train: correct one, or leave --groups"):
        prepare(path, out=tmp_path / "other", modalities=texts, groups="kind", split="part")


@pytest.mark.parametrize("named", [True, False])
def test_a_table_for_each_split(tmp_path, rows, named):
    """With the modalities named, or inferred."""
    parts = {"train": rows[:20], "validation": rows[20:25], "test": rows[25:]}
    paths = {split: str(write_csv(tmp_path / f"{split}.csv", part)) for split, part in parts.items()}
    texts = {"modalities": (Column("text", "text", ("title",)),)} if named else {"leave_out": ("photo", "clip", "part")}
    out = tmp_path / "out"
    table.prepare(str(out), label="kind", **paths, **texts)
    dataset = open_dataset(out)
    assert {name: split.examples for name, split in dataset.info.splits.items()} == {"train": 20, "val": 5, "test": 5}
    assert dataset.source("test").ids() == [f"{number:07d}" for number in range(25, 30)]
    assert dataset.info.name == "train"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--table: name one table; or one for each split"),
        (["--test={test}"], "--table: name one table; or one for each split"),
        (["--table={train}", "--test={test}"], "--table: name one table; or one for each split"),
        (["--train={train}", "--test={train}"], "two of them are the same file"),
        (["--train={train}", "--test={test}", "--split=part"], "--split=part: the tables are of one split each"),
        (
            ["--train={train}", "--test={other}"],
            "other.csv: no column 'title'; it has: titel, kind (is 'titel' meant?)",
        ),
        (["--train={train}", "--test={test}", "--groups=knid"], "no column 'knid'"),
        (["--table={train}", "--folds=3", "--split=part"], "--folds=3: takes --label, and no --split"),
        (["--table={train}", "--folds=21"], "--folds=21: give 2 or more, and no more than the 20 rows"),
        (["--table={train}", "--weight=title"], "the weight in column 'title' is no finite number: correct it"),
        (["--table={train}", "--weight=wieght"], "no column 'wieght'"),
    ],
)
def test_bad_splits_of_tables(tmp_path, rows, arguments, complaint):
    parts = {"train": rows[:20], "test": rows[20:], "other": [{"titel": "a", "kind": "b"}]}
    paths = {name: write_csv(tmp_path / f"{name}.csv", part) for name, part in parts.items()}
    given = [argument.format(**paths) for argument in arguments]
    assert complaint in refusal("--text=title", "--label=kind", *given, out=tmp_path / "out")


def test_each_fold_is_a_dataset_and_every_row_is_tested_on_once(tmp_path, rows):
    out = tmp_path / "out"
    texts = (Column("text", "text", ("title",)),)
    table.prepare(str(out), table=str(write_csv(tmp_path / "mine.csv", rows)), modalities=texts, label="kind", folds=5)
    folds = [open_dataset(out / f"fold{fold}") for fold in range(5)]
    tested = [id for fold in folds for id in fold.source("test").ids()]
    assert sorted(tested) == [f"{number:07d}" for number in range(30)]
    for fold in folds:
        assert fold.info.splits["test"].classes == (2, 2, 2)
        assert set(fold.info.splits) == {"train", "val", "test"} and fold.info.source["folds"] == 5


def test_weights_of_training_examples(tmp_path, rows):
    """What other splits have there does not matter."""
    for number, row in enumerate(rows):
        row["cost"] = number / 4 if row["part"] == "train" else ""
    texts = (Column("text", "text", ("title",)),)
    path = write_csv(tmp_path / "mine.csv", rows)
    dataset = open_dataset(prepare(path, modalities=texts, split="part", weight="cost"))
    assert dataset.source("train").weights().tolist() == [number / 4 for number in range(24)]
    assert dataset.source("test").weights() is None


def test_rare_classes_are_trained(tmp_path, rows):
    rows[0]["kind"] = "once"
    rows[1]["kind"] = "a|once more"
    for seed in range(5):
        shares = {"seed": seed, "split": "0.4,0.3,0.3"}
        out = prepare(write_csv(tmp_path / "mine.csv", rows), label_separator="|", overwrite=True, **shares)
        info = open_dataset(out).info
        assert all(info.splits["train"].classes)
        assert info.splits["test"].examples == pytest.approx(9, abs=2)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "changes", "complaint"),
    [
        (5, {"part": "holdout"}, "mine.jsonl, line 6: unknown split 'holdout' in column 'part': use train, val, test"),
        (29, {"kind": "d"}, "mine.jsonl, line 30: class 'd' is never seen in the train split"),
        (3, {"title": "Number 2"}, "mine.jsonl: id 'Number 2' comes 2 times"),
        (3, {"title": None}, "mine.jsonl, line 4: column 'title' is empty: give one value"),
        (3, {"height": "tall"}, "mine.jsonl, line 4: 'tall' in column 'height' is no finite number: correct it or"),
        (3, {"height": 1e300}, "mine.jsonl, line 4: 1e+300 in column 'height' is no finite number"),
        (3, {"weight": float("inf")}, "mine.jsonl, line 4: inf in column 'weight' is no finite number"),
        (3, {"weight": "-Infinity"}, "mine.jsonl, line 4: '-Infinity' in column 'weight' is no finite number"),
        (3, {"weight": 10**400}, "in column 'weight' is no finite number"),
        (3, {"weight": {"kg": 3}}, "mine.jsonl, line 4: {'kg': 3} in column 'weight' is no finite number"),
        (
            3,
            {"photo": ["data/3.jpg"]},
            "mine.jsonl, line 4: column 'photo' is a list: give one value, only a video takes several pictures",
        ),
    ],
)
def test_bad_row(tmp_path, rows, row, changes, complaint):
    rows[row] |= changes
    with pytest.raises(UserError) as error:
        prepare(write_jsonl(tmp_path / "mine.jsonl", rows), split="part", id="title")
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "mine.jsonl"}


def test_no_label_anywhere(tmp_path, rows):
    for row in rows:
        row["kind"] = ""
    with pytest.raises(UserError, match="--label=kind: none of the 30 rows has a label"):
        prepare(write_csv(tmp_path / "mine.csv", rows), modalities=ALL[:1])


def test_no_class_anywhere(tmp_path, rows):
    for row in rows:
        row["kind"] = []
    with pytest.raises(UserError, match="--label=kind: every row has the same label, an empty list"):
        prepare(write_jsonl(tmp_path / "mine.jsonl", rows), split="part")


def test_videos_and_their_sound(tmp_path, rows):
    """Frames and sound of a video are two modalities; either may be missing, damaged, or of another file."""
    for number, row in enumerate(rows):
        row["video"] = row["sound"] = f"data/{number}.mkv"
        write_clip(tmp_path / row["video"], number)
    write_video(tmp_path / "data" / "0.mkv", None, tone(0.4))
    write_video(tmp_path / "data" / "1.mkv", clock([1 / 6] * 10), None)
    (tmp_path / "data" / "2.mkv").write_bytes(b"<html>" * 100)
    rows[3]["sound"] = ""
    rows[4]["sound"] = "data/9.mkv"
    rows[5]["sound"] = "data/5.wav"
    noise = np.random.default_rng(0).integers(0, 256, (100, 64, 96, 3), dtype=np.uint8)
    damaged = write_video(tmp_path / "data" / "6.mkv", list(noise), tone(4.0))
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 4])
    columns = Column("video", "video", ("video",)), Column("audio", "audio", ("sound",)), ALL[2]
    options = {"split": "part", "rate": 16000, "fps": 5.0, "seconds": 2, "size": 16, "max_unreadable": 0.5}
    out = prepare(write_csv(tmp_path / "mine.csv", rows), modalities=columns, **options)

    info = open_dataset(out).info
    assert (info.modalities["video"].frame_rate, info.modalities["audio"].sample_rate) == (5.0, 16000)
    examples = {int(example["id"]): example for example in read_clips(out, "train")}
    for number in range(7, 24):
        assert numbers_of(examples[number]) == (number, number)
        assert len(examples[number]["video"]) == 2  # of 0.4 s
    missing = {number: {"video", "audio"} - examples[number].keys() for number in range(7)}
    expected = {0: {"video"}, 1: {"audio"}, 2: {"video", "audio"}, 3: {"audio"}, 4: set(), 5: set(), 6: set()}
    assert missing == expected
    assert numbers_of(examples[4]) == (4, 9)
    assert len(examples[5]["audio"]) == 2 * len(PCM) // 2  # from 8 to 16 kHz
    assert 4 <= len(examples[6]["video"]) < 10 and len(examples[6]["audio"]) <= 2 * 16000
    found = report(out)
    assert {line.split(": ")[0] for line in found.pop(DAMAGED)} == {str(damaged)}
    assert found == {
        NO_PICTURE: [f"{tmp_path}/data/0.mkv: from 0 s to 2 s"],
        NO_SOUND: [f"{tmp_path}/data/1.mkv: from 0 s to 2 s"],
        CUT: [f"{damaged}: 4.0 s"],
        UNREADABLE: [f"{tmp_path}/data/2.mkv: not a video or sound file: Invalid data found when processing input"],
    }


def test_silent_videos_are_kept_and_files_are_read_once(tmp_path, rows):
    """Whichever column names them, and although hardly any is allowed to be unreadable."""
    for number, row in enumerate(rows):
        row["video"] = row["sound"] = f"data/{number}.mkv"
        write_video(tmp_path / row["video"], clock([number / 10] * 10), tone(0.4) if number == 0 else None)
    columns = Column("video", "seen", ("video",)), Column("audio", "heard", ("sound",))
    out = prepare(write_csv(tmp_path / "mine.csv", rows), modalities=columns, split="part", seconds=2)
    splits = open_dataset(out).info.splits.values()
    assert sum(split.present["seen"] for split in splits) == len(rows)
    assert sum(split.present["heard"] for split in splits) == 1
    assert {kind: len(lines) for kind, lines in report(out).items()} == {NO_SOUND: len(rows) - 1}


def test_limit_on_pixels(tmp_path, rows):
    """It is one for images and for frames, and what is beyond it is listed."""
    for number, row in enumerate(rows):
        row["video"] = f"data/{number}.mkv"
        write_clip(tmp_path / row["video"], number)
    Image.new("RGB", (60, 60)).save(tmp_path / "data" / "3.jpg", "PNG")
    columns = Column("image", "image", ("photo",)), Column("video", "video", ("video",))
    out = prepare(
        write_csv(tmp_path / "mine.csv", rows), modalities=columns, split="part", seconds=1, max_pixels=48 * 32
    )
    assert report(out) == {UNREADABLE: [f"{tmp_path}/data/3.jpg: 60x60 pixels, more than --max-pixels=1,536"]}
    command = ["--image=photo", "--video=video", "--label=kind", "--max-pixels=1000", f"--table={tmp_path}/mine.csv"]
    assert "of 60 files are unreadable, more than 5 %" in refusal(*command, out=tmp_path / "other")


def test_vectors_of_different_sizes(tmp_path, rows):
    for number, row in enumerate(rows):
        row["embedding"] = [1.0] * (5 if number != 7 else 4)
    with pytest.raises(UserError, match="line 8: 4 numbers instead of 5"):
        prepare(write_jsonl(tmp_path / "mine.jsonl", rows), modalities=(Column("tabular", "v", ("embedding",)),))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--text=title", "--type=height=text"], "--type and --leave-out: only where no modality is named"),
        (["--tabular=labs=lab_*"], "no column 'lab_*'; it has: photo, clip, title"),
        (["--type=height=real"], "--type: 'height=real' is not COLUMN=TYPE with one of number, category"),
        (["--type=hight=number"], "no column 'hight'; it has: photo, clip, title"),
        (["--type=kind=text"], "column 'kind' is the label: it cannot be an input as well"),
        (["--leave-out=photo,clip,title,height,weight,part"], "no column is left to be an input (photo: as you say;"),
        (["--image=photo", "--image=photo"], "--image: 2 modalities of this name: name them, as in --image=NAME="),
        (["--tabular=height,height"], "--tabular: column 'height' stands 2 times: name it once"),
        ([f"--text={'a' * 101}=title"], "a modality cannot be called 'aaa"),
        (["--image=foto"], "no column 'foto'; it has: photo, clip, title"),
        (["--text=label=title"], "a modality cannot be called 'label'"),
        (["--text=title", "--split=0.8,0.1"], "--split=0.8,0.1: give three shares"),
        (["--text=title", "--split=0.5,0.3,0.3"], "--split=0.5,0.3,0.3: give three shares"),
        (["--text=title", "--split=portion"], "no column 'portion'"),
        (["--text=title", "--rate=0"], "--rate: '0' is not a whole number of samples in a second"),
        (["--text="], "--text: name a column"),
        (["--image=photo", "--max-pixels=0"], "--max-pixels: '0' is not a whole number from 1 on"),
        (["--video=photo", "--fps=0"], "--fps: '0' is not a number of frames in a second"),
        (["--video=photo", "--seconds=0"], "--seconds: '0' is not a whole number from 1 on"),
    ],
)
def test_bad_arguments(tmp_path, rows, arguments, complaint):
    path = write_csv(tmp_path / "mine.csv", rows)
    assert complaint in refusal(f"--table={path}", "--label=kind", *arguments, out=tmp_path / "out")


def refusal(*arguments, out):
    """The one line that the command ends with, and nothing is made."""
    result = run(*arguments, f"--out={out}")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert not out.exists()
    return line


def run(*arguments):
    command = [sys.executable, "-m", "data_prep.table", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_command(tmp_path, rows):
    """Modalities that the command line names."""
    path = write_csv(tmp_path / "mine.csv", rows)
    arguments = ["--image=photo", "--text=caption=title", "--tabular=size=height,weight", "--label=kind"]
    result = run(f"--table={path}", *arguments, f"--out={tmp_path}/out")
    assert (result.returncode, result.stderr) == (0, "")
    info = open_dataset(tmp_path / "out").info
    assert {name: modality.kind for name, modality in info.modalities.items()} == {
        "image": "image",
        "caption": "text",
        "size": "tabular",
    }


@pytest.mark.slow
def test_real_pairs_as_a_table(tmp_path, shared_data):
    raw = shared_data / "product_pairs_upmc_layout"
    lines = ["photo,title,category,part"]
    for split in ("train", "test"):
        for line in (raw / "texts" / f"{split}_titles.csv").read_text().splitlines()[::10]:
            name, label = line.split(",")[0], line.split(",")[-1]
            lines.append(f"{raw}/images/{split}/{label}/{line.removesuffix(',' + label)},{label},{split}")
            assert name in lines[-1]
    path = tmp_path / "products.csv"
    path.write_text("\n".join(lines))
    out = prepare(
        path,
        modalities=(Column("image", "image", ("photo",)), Column("text", "text", ("title",))),
        label="category",
        split="part",
        processes=2,
    )
    assert {name: split.present for name, split in open_dataset(out).info.splits.items()} == {
        "train": {"image": 528, "text": 528},
        "test": {"image": 132, "text": 132},
    }
    assert Counter(len(example["label"]) for example in read_features(out, "test")) == {1: 132}
