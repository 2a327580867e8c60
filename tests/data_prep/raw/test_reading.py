"""Single rows become the very values that a prepared dataset holds."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_prep.prepared import read_features
from tests.data_prep.raw_clips import read_clips, write_clip, write_video
from tests.data_prep.raw_files import wav_bytes
from tests.data_prep.raw_photos import photo_bytes
from umemma_jax.data import kinds
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data_prep import quickstart, table
from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.build.prep_report import DAMAGED, UNREADABLE, Report
from umemma_jax.data_prep.raw.columns import NO_FILE, Column
from umemma_jax.data_prep.raw.reading import RowReader
from umemma_jax.errors import UserError

PCM = np.arange(-50, 50, dtype="<i2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 rows of everything, prepared: some values are missing, one category is seen in training alone."""
    folder = tmp_path_factory.mktemp("rows")
    rows = []
    for number in range(30):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.wav").write_bytes(wav_bytes(PCM.tobytes()))
        rows.append(
            {
                "photo": f"{number}.png",
                "clip": f"{number}.wav" if number % 7 else None,
                "title": f"The number {number} of all" if number % 5 else None,
                "height": number / 2 if number % 3 else "n/k" if number == 3 else None,
                "colour": ["red", "blue", None][number % 3],
                "made": f"2024-03-{number + 1:02}",
                "kind": "abc"[number % 3],
                "part": "train" if number < 24 else "val",
            }
        )
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.prepare(str(folder / "out"), table=str(folder / "t.jsonl"), label="kind", split="part", rate=8000, size=8)
    return folder


def png(seed):
    file = io.BytesIO()
    Image.open(io.BytesIO(photo_bytes(seed))).save(file, "PNG")
    return file.getvalue()


def reader(folder, modalities=None):
    return RowReader(open_dataset(folder / "out").info, modalities)


def read(folder, row, modalities=None, report=None):
    (row,) = table_of([row]).rows
    return reader(folder, modalities).read(row, folder, report)


def test_rows_are_read_as_the_dataset_was(folder):
    """What is not taken from a file, either."""
    info = open_dataset(folder / "out").info
    examples = [example for split in ("train", "val") for example in read_features(folder / "out", split)]
    rows = table_of(folder / "t.jsonl").rows
    rows_reader = RowReader(info)
    for row, example in zip(rows, examples, strict=True):
        found = rows_reader.read(row, folder)
        stored = {name: kinds.codec(info.modalities[name]).encode(value) for name, value in found.items()}
        written = {
            name: x.encode() if isinstance(x, str) else x for name, x in example.items() if name in info.modalities
        }
        assert stored == written


@pytest.mark.parametrize(
    "photo",
    [
        png(0),
        base64.b64encode(png(0)).decode(),
        {"bytes": png(0), "path": None},
        Image.open(io.BytesIO(png(0))),
        np.asarray(Image.open(io.BytesIO(png(0)))),
        Path("0.png"),
    ],
)
def test_values_in_memory_are_as_those_of_files(folder, photo):
    assert read(folder, {"photo": photo}) == read(folder, {"photo": "0.png"})


def test_sound_in_memory_is_as_that_of_files(folder):
    (from_file,) = read(folder, {"clip": "1.wav"}).values()
    for sound in (wav_bytes(PCM.tobytes()), (PCM, 8000), {"array": PCM, "sampling_rate": 8000}):
        np.testing.assert_array_equal(read(folder, {"clip": sound})["clip"], from_file)


def test_anything_may_be_missing(folder):
    report = Report()
    assert read(folder, {"photo": None, "title": " ", "other": 5}) == {}
    (vector,) = read(folder, {"colour": "green", "height": "?", "made": None}, report=report).values()
    assert vector[:2].tolist() == pytest.approx([np.nan, kinds.UNSEEN], nan_ok=True)
    assert report.entries("category in column 'colour' that training does not have (kept as such)") == [
        "data[0]: 'green'"
    ]
    assert read(folder, {"photo": "0.png", "title": "T"}, ["title"]) == {"title": "T"}


def test_files_that_cannot_be_read_count_as_missing_where_that_is_wanted(folder):
    report = Report()
    for photo in ("lost.png", "0.wav"):
        (row,) = table_of([{"photo": photo, "title": "T"}]).rows
        assert reader(folder).read(row, folder, report, skip_unreadable=True) == {"title": "T"}
    assert report.count(NO_FILE) == report.count(UNREADABLE) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"photo": "lost.png"}, r"data\[0\]: file does not exist: .*/lost.png"),
        ({"photo": "0.wav"}, r"data\[0\]: .*/0.wav: UnidentifiedImageError"),
        ({"photo": b"\xff\xd8\xff"}, r"data\[0\], column 'photo': \w+: "),
        ({"photo": 5}, r"data\[0\]: column 'photo' is int, neither the path nor the content of a file"),
        ({"photo": "https://example.org/a.png"}, r"data\[0\]: 'https://example.org/a.png' in column 'photo' is a URL"),
        ({"clip": "0.png"}, r"data\[0\]: .*/0.png: "),
        ({"height": "tall"}, r"data\[0\]: 'tall' in column 'height' is no finite number"),
        ({"made": "yesterday"}, r"data\[0\]: 'yesterday' in column 'made' is no date"),
        ({"title": [1, 2]}, r"data\[0\]: column 'title' is a list"),
    ],
)
def test_what_cannot_be_read_ends_in_one_line(folder, row, message):
    with pytest.raises(UserError, match=message) as error:
        read(folder, row)
    assert "\n" not in str(error.value)


def test_columns_that_are_lacking_are_said(folder):
    columns = ["clip", "photo", "Title", "colour", "made"]
    assert reader(folder).notes(columns) == [
        "no column 'height': its values count as missing",
        "no column 'title' (is 'Title' meant?): its values count as missing",
    ]
    with pytest.raises(
        UserError, match=r"no column that the model knows, which are title; there are: Title, x \(is 'T"
    ):
        reader(folder, ["title"]).notes(["Title", "x"])


@pytest.mark.parametrize("form", ["parquet", "polars", "pandas"])
def test_pictures_and_sound_as_data_sets_of_hugging_face_have_them(tmp_path, form):
    """As files in a struct, or as objects, in a file or in memory: all are found, and stored as they are."""
    rows = [
        {
            "image": {"bytes": photo_bytes(n), "path": f"{n}.jpg"} if n % 4 else None,
            "audio": {"bytes": wav_bytes(PCM.tobytes()), "path": None},
            "label": n % 2,
        }
        for n in range(12)
    ]
    if form == "pandas":
        opened = [row["image"] and Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
        sound = [{"array": PCM / 32768, "sampling_rate": 8000} for _ in rows]
        data = pytest.importorskip("pandas").DataFrame({"image": opened, "audio": sound, "label": [0, 1] * 6})
    else:
        data = pytest.importorskip("polars").DataFrame(rows)
        if form == "parquet":
            data.write_parquet(tmp_path / "t.parquet")
            data = tmp_path / "t.parquet"
    given = table_of(data)
    choices, _ = table.inferred(given, table.Choices(label="label", split="1,0,0", rate=8000))
    assert [(column.kind, column.name) for column in choices.modalities] == [("image", "image"), ("audio", "audio")]
    table.prepare_rows(str(tmp_path / "out"), given.rows, choices, given.path, "mine")
    for number, example in enumerate(read_features(tmp_path / "out", "train")):
        assert example.get("image") == (photo_bytes(number) if number % 4 else None)
        assert example["audio"] == PCM.tobytes()


def test_several_pictures_are_frames_beside_those_of_videos(tmp_path):
    write_clip(tmp_path / "0.mp4", 3)
    files = [{"clip": "0.mp4", "kind": "ab"[number % 2]} for number in range(4)]
    pictures = {"clip": [png(0), "lost.png", Image.open(io.BytesIO(png(1)))], "kind": "a"}
    data = table_of([*files, pictures])
    columns = [Column("video", "video", ("clip",)), Column("audio", "audio", ("clip",))]
    choices = table.Choices(columns, label="kind", split="1,0,0", rate=8000)
    with pytest.raises(UserError, match=r"data\[4\]: column 'clip' is a list: give one value"):  # which has no sound
        table.prepare_rows(str(tmp_path / "out"), data.rows, choices, tmp_path / "data", "mine")
    choices = table.Choices(columns[:1], label="kind", split="1,0,0")
    table.prepare_rows(str(tmp_path / "out"), data.rows, choices, tmp_path / "data", "mine")
    *_, last = read_clips(tmp_path / "out", "train")
    report = Report()
    found = read(tmp_path, {"clip": [png(0), b"damaged", png(1)]}, report=report)
    assert found["video"] == last["video"]
    assert (len(found["video"]), report.count(DAMAGED)) == (2, 1)


def test_a_video_in_memory_is_read_once_for_picture_and_sound(tmp_path):
    write_clip(tmp_path / "0.mp4", 3)
    write_video(tmp_path / "silent.mp4", [np.zeros((32, 48, 3), np.uint8)] * 10)
    data = table_of([{"clip": "0.mp4", "kind": "ab"[number % 2]} for number in range(4)])
    columns = [Column("video", "video", ("clip",)), Column("audio", "audio", ("clip",))]
    choices = table.Choices(columns, label="kind", split="1,0,0", rate=8000)
    table.prepare_rows(str(tmp_path / "out"), data.rows, choices, tmp_path / "data", "mine")
    from_file = read(tmp_path, {"clip": "0.mp4"})
    in_memory = read(tmp_path, {"clip": (tmp_path / "0.mp4").read_bytes()})
    assert from_file["video"] == in_memory["video"]
    np.testing.assert_array_equal(from_file["audio"], in_memory["audio"])
    assert read(tmp_path, {"clip": (tmp_path / "silent.mp4").read_bytes()}).keys() == {"video"}


def test_datasets_of_other_preparations(tmp_path):
    """Their modalities are read from columns of the same name; pixels of a fixed size must have it."""
    quickstart.prepare(str(tmp_path / "out"))
    info = open_dataset(tmp_path / "out").info
    (name,) = (name for name, modality in info.modalities.items() if modality.encoding == "raw")
    height, width, _ = info.modalities[name].shape
    pixels = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    np.testing.assert_array_equal(read(tmp_path, {name: pixels})[name], pixels[..., np.newaxis])
    with pytest.raises(UserError, match=rf"1x2 pixels instead of {width}x{height}"):
        read(tmp_path, {name: pixels[:2, :1]})


def test_categories_of_other_preparations_go_by_name(tmp_path):
    columns, levels = ("price", "colour"), {"colour": {"red": 2, "green": 1}}
    table = Modality("tabular", "float32", shape=(2,), columns=columns, levels=levels)
    with DatasetWriter(tmp_path / "out", name="mine", description="", classes=["a"], modalities={"t": table}) as writer:
        writer.write("train", id="0", label=0, t=np.zeros(2, np.float32))
    assert read(tmp_path, {"price": 1.5, "colour": "green"})["t"].tolist() == [1.5, 1.0]
