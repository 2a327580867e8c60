import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.data_prep.prepared import contents, read_features
from tests.data_prep.raw_photos import (
    CLASSES,
    TEST_PER_CLASS,
    TRAIN_PER_CLASS,
    photo_bytes,
    write_food101,
    write_titles,
)
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import food101
from umemma_jax.data_prep.build.assemble import NOTHING_LEFT
from umemma_jax.data_prep.build.prep_report import FILE_NAME, UNREADABLE
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw(tmp_path):
    """A whole copy, to be damaged."""
    write_food101(tmp_path / "raw")
    return tmp_path / "raw"


def prepare(raw, out=None, **options):
    out = out or raw.parent / "out"
    food101.prepare(str(out), raw=str(raw), **options)
    return out


def report(out):
    return json.loads((out / FILE_NAME).read_text())


def ids(out, split):
    return [example["id"] for example in read_features(out, split)]


def edit_titles(raw, split, edit):
    """Replaces the rows of a titles file by `edit` of them."""
    path = raw / "texts" / f"{split}_titles.csv"
    rows = list(food101.read_titles(path))
    write_titles(path, edit([(row.name, row.title, row.label) for row in rows]))
    return path


# --- whole data -------------------------------------------------------------------------------------------------------


def test_every_pair_arrives(raw):
    out = prepare(raw, validation_share=0)
    info = open_dataset(out).info
    assert info.classes == CLASSES
    assert {name: split.classes for name, split in info.splits.items()} == {
        "train": (TRAIN_PER_CLASS,) * 3,
        "test": (TEST_PER_CLASS,) * 3,
    }
    for split in ("train", "test"):
        rows = list(food101.read_titles(raw / "texts" / f"{split}_titles.csv"))
        examples = read_features(out, split)
        assert [example["id"] for example in examples] == [row.name for row in rows]
        for row, example in zip(rows, examples, strict=True):
            assert example["text"] == row.title
            assert CLASSES[example["label"][0]] == row.label
            assert example["image"] == (raw / "images" / split / row.label / row.name).read_bytes()
    assert report(out) == {}
    assert sorted(path.name for path in raw.parent.iterdir()) == ["out", "raw"]


def test_validation_is_drawn_class_by_class_by_the_seed(raw, tmp_path):
    first, again, other = (prepare(raw, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert open_dataset(first).info.splits["val"].classes == (2, 2, 2)
    assert open_dataset(first).info.splits["train"].classes == (18, 18, 18)
    assert contents(first) == contents(again)
    assert set(ids(first, "val")) != set(ids(other, "val"))
    for out in (first, other):
        assert len({*ids(out, "train"), *ids(out, "val")}) == 60


def test_number_of_processes_changes_nothing(raw, tmp_path):
    assert contents(prepare(raw, tmp_path / "one")) == contents(prepare(raw, tmp_path / "three", processes=3))


def test_titles_with_quotes_commas_and_newlines(raw):
    titles = ['"The best" pizza', "Pizza, ham, cheese", "Pizza\nin two lines", "Crème brûlée 🍕", ' a "b" c ']
    edit_titles(raw, "test", lambda rows: [(n, t, c) for (n, _, c), t in zip(rows[: len(titles)], titles, strict=True)])
    examples = read_features(prepare(raw), "test")
    assert [example.get("text") for example in examples[:5]] == [title.strip() for title in titles]


def test_byte_order_mark_and_blank_lines(raw):
    path = raw / "texts" / "test_titles.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n\n"))
    assert report(prepare(raw)) == {}


# --- damage that is mended --------------------------------------------------------------------------------------------


def test_what_is_half_gone_is_kept_and_what_is_gone_is_dropped(raw):
    pizzas = raw / "images" / "train" / "pizza"
    names = sorted(path.name for path in pizzas.iterdir())
    no_image, no_row, no_title, truncated, nothing, also_nothing = names[:6]
    for name in (no_image, nothing):
        (pizzas / name).unlink()
    for name in (truncated, also_nothing):
        (pizzas / name).write_bytes(photo_bytes(1)[:300])

    def edit(rows):
        empty = (no_title, nothing, also_nothing)
        return [(n, " " if n in empty else t, c) for n, t, c in rows if n != no_row]

    edit_titles(raw, "train", edit)
    out = prepare(raw, validation_share=0)
    examples = {example["id"]: example for example in read_features(out, "train")}
    present = {name: {"image", "text"} & examples[name].keys() for name in names if name in examples}
    assert present.pop(no_image) == present.pop(truncated) == {"text"}
    assert present.pop(no_row) == present.pop(no_title) == {"image"}
    assert all(both == {"image", "text"} for both in present.values())
    assert len(present) == TRAIN_PER_CLASS - 6
    assert {CLASSES[example["label"][0]] for name, example in examples.items() if "pizza" in name} == {"pizza"}
    line = {name: 21 + number for number, name in enumerate(name for name in names if name != no_row)}
    place = {name: f"{name} ({raw}/texts/train_titles.csv, line {number})" for name, number in line.items()}
    expected = {
        food101.ROW_WITHOUT_IMAGE: [place[no_image], place[nothing]],
        food101.EMPTY_TITLE: [place[no_title], place[nothing], place[also_nothing]],
        food101.IMAGE_WITHOUT_ROW: [f"{pizzas}/{no_row}"],
        UNREADABLE: [f"{pizzas}/{name}: OSError: Truncated File Read" for name in (truncated, also_nothing)],
        NOTHING_LEFT: [nothing, also_nothing],
    }
    assert report(out) == {kind: {"count": len(entries), "entries": entries} for kind, entries in expected.items()}


def test_image_in_another_folder(raw):
    pizza = next((raw / "images" / "train" / "pizza").iterdir())
    pizza.rename(raw / "images" / "train" / "ramen" / pizza.name)
    out = prepare(raw, validation_share=0)
    (example,) = [example for example in read_features(out, "train") if example["id"] == pizza.name]
    assert (CLASSES[example["label"][0]], "image" in example) == ("pizza", True)
    assert report(out)[food101.OTHER_FOLDER]["count"] == 1


def test_summary(raw, capsys):
    next((raw / "images" / "train" / "pizza").iterdir()).unlink()
    out = prepare(raw)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"report: {out / FILE_NAME}"
    assert lines[-1].startswith("  1 x row without image (kept, text only), e.g. pizza_")


# --- split files ------------------------------------------------------------------------------------------------------


def split_file(raw, **splits):
    path = raw.parent / "split.json"
    path.write_text(json.dumps(splits))
    return str(path)


def test_split_file(raw):
    """The file decides, in its order, whichever folder an image is in; what it leaves out is dropped."""
    train = [row.name for row in food101.read_titles(raw / "texts" / "train_titles.csv")]
    test = [row.name for row in food101.read_titles(raw / "texts" / "test_titles.csv")]
    listed = {"train": train[::-2], "val": train[1:9:2], "test": [*test, "gone_1.jpg"]}
    listed["train"] = [name for name in listed["train"] if name not in listed["val"]]
    out = prepare(raw, split=split_file(raw, **listed))
    listed["test"].remove("gone_1.jpg")
    assert {split: ids(out, split) for split in listed} == listed
    assert report(out)[food101.NOT_IN_RAW_DATA] == {"count": 1, "entries": ["gone_1.jpg (test)"]}
    assert report(out)[food101.NOT_IN_SPLIT_FILE]["count"] == 60 - len(listed["train"]) - 4


def test_real_split_file(raw, shared_data):
    path = shared_data / "annotations" / "UPMC-Food101" / "split.json"
    out = prepare(raw, split=str(path))
    listed = json.loads(path.read_text())
    assert list(open_dataset(out).info.splits) == list(listed)
    names = {image.name for image in raw.glob("images/*/*/*.jpg")}
    for split, of_split in listed.items():
        assert ids(out, split) == [name for name in of_split if name in names]


def test_split_file_of_another_dataset(raw, shared_data):
    with pytest.raises(UserError, match=r"split\.json: unknown split 'dev'"):
        prepare(raw, split=str(shared_data / "annotations" / "MM-IMDB" / "split.json"))
    with pytest.raises(UserError, match="none of the examples of 'train' is in the raw data"):
        prepare(raw, split=split_file(raw, train=["a.jpg"], test=["ramen_40.jpg"]))


# --- what stops it ----------------------------------------------------------------------------------------------------


def append(line):
    def damage(raw):
        with (raw / "texts" / "test_titles.csv").open("a") as file:
            file.write(line)

    return damage


def duplicate_row(raw):
    edit_titles(raw, "train", lambda rows: [*rows, rows[2]])


def same_name_in_train_and_test(raw):
    edit_titles(raw, "test", lambda rows: [("pizza_25.jpg", "Pizza", "pizza"), *rows])


def same_image_twice(raw):
    (raw / "images" / "train" / "pizza" / "ramen_40.jpg").write_bytes(photo_bytes(0))


def unreadable_images(raw):
    for path in sorted((raw / "images" / "train" / "pizza").iterdir())[:4]:
        path.write_bytes(b"<html>")


def not_utf8(raw):
    path = raw / "texts" / "test_titles.csv"
    path.write_bytes(path.read_bytes() + b"pizza_99.jpg,Cr\xe8me,pizza\n")


def nothing_in_it(raw):
    for path in raw.glob("images/*/*/*"):
        path.unlink()
    for path in raw.glob("texts/*"):
        path.write_text("")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (append("pizza_99.jpg,Pizza, ham,pizza\n"), "texts/test_titles.csv, line 13: 4 fields instead of 3"),
        (append('pizza_99.jpg,"Two\nlines"\n'), "texts/test_titles.csv, line 13: 2 fields instead of 3"),
        (append('x.jpg,"Two\nlines",pizza\nnothing\n'), "texts/test_titles.csv, line 15: 1 fields instead of 3"),
        (
            append('pizza_99.jpg,"Never closed,pizza\n'),
            "titles.csv, line 13: a quotation mark is not closed",
        ),
        (append(f'pizza_99.jpg,"Never {"x" * 200_000}'), "line 13: a quotation mark is not closed"),
        (append("pizza_99.jpg,Pizza,\n"), "line 13: image name 'pizza_99.jpg', class '': neither may be empty"),
        (append("../pizza_99.jpg,Pizza,pizza\n"), "nor a path"),
        (append("sushi_1.jpg,Sushi,sushi\n"), "line 13: class 'sushi' is never seen in the train split"),
        (nothing_in_it, "not a single example"),
        (not_utf8, "test_titles.csv, line 13: not UTF-8"),
        (duplicate_row, "train_titles.csv, line 61: pad_thai_2.jpg is in {raw}/texts/train_titles.csv, line 3 already"),
        (same_name_in_train_and_test, "test_titles.csv, line 1: pizza_25.jpg is in {raw}/texts/train_titles.csv, line"),
        (same_image_twice, "ramen/ramen_40.jpg: there is another image of this name"),
        (unreadable_images, "4 of 72 files are unreadable, more than 5 %: they are listed in"),
    ],
)
def test_one_line_and_nothing_left(raw, damage, complaint):
    damage(raw)
    with pytest.raises(UserError) as error:
        prepare(raw)
    assert complaint.format(raw=raw) in str(error.value)
    assert "\n" not in str(error.value)
    left = {path.name for path in raw.parent.iterdir()}
    assert left == ({"raw", "out.work"} if damage is unreadable_images else {"raw"})


def test_unreadable_images_are_listed_and_mended(raw):
    unreadable_images(raw)
    with pytest.raises(UserError):
        prepare(raw)
    listed = json.loads((raw.parent / "out.work" / FILE_NAME).read_text())[UNREADABLE]
    assert listed["count"] == 4
    for number, entry in enumerate(listed["entries"]):
        Path(entry.split(":")[0]).write_bytes(photo_bytes(number))
    assert report(prepare(raw)) == {}
    assert not (raw.parent / "out.work").exists()


def test_more_unreadable_images_where_told(raw):
    unreadable_images(raw)
    assert report(prepare(raw, max_unreadable=0.1))[UNREADABLE]["count"] == 4


@pytest.mark.parametrize(
    ("splits", "complaint"),
    [
        ({"train": ["pizza_20.jpg"], "test": ["pizza_21.jpg"], "dev": []}, "unknown split 'dev': rename it to one of"),
        ({"train": ["pizza_20.jpg"]}, "no examples for 'test'"),
        ({"train": ["pizza_20.jpg"], "test": ["pizza_20.jpg"]}, "is listed in 'train' and in 'test'"),
        ({"train": ["pizza_20.jpg"], "test": ["ramen_40.jpg"]}, "class 'ramen' is never seen in the train split"),
        ({"train": {"pizza_20.jpg": 1}, "test": []}, "not a JSON object"),
    ],
)
def test_bad_split_file(raw, splits, complaint):
    with pytest.raises(UserError, match=complaint):
        prepare(raw, split=split_file(raw, **splits))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("raw/images", "lies inside the raw data: give the folder above, --raw={tmp_path}/raw"),
        ("raw/images/train", "lies inside the raw data: give the folder above, --raw={tmp_path}/raw"),
        (".", "lies above the raw data: give the folder inside, --raw={tmp_path}/raw"),
        ("elsewhere", "no such folder: point --raw at UPMC Food101"),
    ],
)
def test_wrong_folder(raw, tmp_path, given, complaint):
    with pytest.raises(UserError) as error:
        prepare(tmp_path / given, tmp_path / "out")
    assert complaint.format(tmp_path=tmp_path) in str(error.value)


def test_incomplete_folder(raw):
    (raw / "texts" / "train_titles.csv").unlink()
    with pytest.raises(UserError, match=r"no texts/train_titles\.csv: point --raw at UPMC Food101"):
        prepare(raw)


# --- the command ------------------------------------------------------------------------------------------------------


def command(raw, *arguments):
    return [sys.executable, "-m", "data_prep.food101", f"--raw={raw}", f"--out={raw.parent}/out", *arguments]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_continued(tmp_path, kill):
    """Whatever ends it, the same command then makes the same dataset as if nothing had been, and nothing else."""
    raw = tmp_path / "raw"
    write_food101(raw, per_class=(400, 4))
    expected = contents(prepare(raw, tmp_path / "expected"))
    process = subprocess.Popen(
        command(raw), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("out.work/*.chunk")):
        assert process.poll() is None
        time.sleep(0.001)
    if kill == signal.SIGINT:
        os.killpg(process.pid, kill)  # Ctrl-C goes to all processes of a terminal
    else:
        process.send_signal(kill)
    _, error = process.communicate()
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob("out.work/*.chunk"))
    if kill != signal.SIGKILL:
        assert (process.returncode, error) == (
            1,
            "error: interrupted, nothing was written; the same command continues\n",
        )
        assert not list(tmp_path.glob("out.partial-*"))
    result = subprocess.run(command(raw), cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out", "raw"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--size=0"], "--size: '0' is not a whole number from 1 on"),
        (["--processes=many"], "--processes: 'many' is not a whole number from 1 on"),
        (["--validation-share=1"], "--validation-share: '1' is not a share from 0 to below 1"),
        (["--split=absent.json"], "absent.json: cannot be read: No such file"),
    ],
)
def test_bad_arguments(raw, arguments, complaint):
    result = subprocess.run(command(raw, *arguments), cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert complaint in line


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_pairs(tmp_path, shared_data):
    raw = shared_data / "product_pairs_upmc_layout"
    out = prepare(raw, tmp_path / "out", processes=2)
    info = open_dataset(out).info
    assert {name: set(split.classes) for name, split in info.splits.items()} == {
        "train": {144},
        "val": {16},
        "test": {40},
    }
    assert len(info.classes) == 33
    assert report(out) == {}
    kept = Counter()
    for split in info.splits:
        for example in read_features(out, split):
            folder = "test" if split == "test" else "train"
            path = raw / "images" / folder / info.classes[example["label"][0]] / example["id"]
            kept[example["image"] == path.read_bytes()] += 1
    assert kept[True] > 6500  # small, and most of them plain
