"""The file of an exported model, read where there is nothing but JAX and NumPy."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests import untrained
from umemma_jax import config as config_lib
from umemma_jax import export, serving
from umemma_jax.by_pattern import ByPattern
from umemma_jax.errors import UserError
from umemma_jax.predict import from_logits
from umemma_jax.program import named
from umemma_jax.serving.texts import Texts

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Path of an exported model of a table, n-grams of a text and a picture, what it is of, and rows of a dataset."""
    folder = tmp_path_factory.mktemp("exported")
    untrained.write_dataset(folder / "data", {"table": "table", "title": "text", "digit": "digit"})
    config = config_lib.load(f"configs/own_data.py:{folder / 'data'}")
    untrained.shrink(config, folder)
    model, rows = untrained.saved_model(config)
    export.export(model, folder / "model.stablehlo")
    return folder / "model.stablehlo", model, rows


@pytest.fixture(scope="module")
def loaded(exported):
    return serving.load(exported[0])


@pytest.fixture(scope="module")
def run(exported):
    model = exported[1]
    return ByPattern(model.module, model.variables, model.inputs, model.info, model.means)


def decoded(run, rows):
    """The arrays of rows of stored values, by modality; zero where a row lacks it."""
    return {m: run.decode(m, [row.get(m) for row in rows]) for m in run.modalities}


def expected(exported, run, rows):
    said, model = run(rows), exported[1]
    return from_logits([""] * len(rows), run.modalities, said.present, said.logits, model.info, model.calibration)


@pytest.mark.parametrize("count", [1, 3, 17, 300])
def test_one_file_is_for_any_number_of_rows(count, exported, loaded, run):
    rows = [exported[2][number % untrained.ROWS] for number in range(count)]
    said = loaded.predict(decoded(run, rows))
    np.testing.assert_allclose(said["probabilities"], expected(exported, run, rows).probabilities, rtol=1e-5, atol=1e-6)


def test_rows_of_several_patterns_in_one_batch(exported, loaded, run):
    rows = [dict(list(row.items())[number % 3 :]) for number, row in enumerate(exported[2][:7])] + [{}]
    present = np.array([[m in row for m in run.modalities] for row in rows])
    said, wanted = loaded.predict(decoded(run, rows), present), expected(exported, run, rows)
    np.testing.assert_allclose(said["probabilities"], wanted.probabilities, rtol=1e-5, atol=1e-6)
    assert np.isnan(said["probabilities"][-1]).all()
    for name in ("predicted", "sets"):
        np.testing.assert_array_equal(said[name], getattr(wanted, name))


def test_nothing_of_an_absent_value_reaches_an_answer(exported, loaded, run):
    rows = exported[2][:4]
    present = np.array([[True, True, True], [False, True, True], [True, False, True], [True, True, False]])
    arrays = decoded(run, rows)
    before = loaded.predict(arrays, present)
    arrays["table"][1], arrays["digit"][3] = np.inf, 255
    arrays["title"]["tokens"][2], arrays["title"]["length"][2] = 2**31 - 1, -1
    arrays["title"]["weights"][2] = np.nan
    for name, values in loaded.predict(arrays, present).items():
        np.testing.assert_array_equal(values, before[name])


def test_none_and_not_there_are_the_same(exported, loaded, run):
    table = decoded(run, exported[2][:2])["table"]
    one, other = loaded.predict({"table": table}), loaded.predict({"table": table, "title": None})
    np.testing.assert_array_equal(one["logits"], other["logits"])


def test_texts_in_place_of_tokens(exported, loaded, run):
    rows = exported[2][:3]
    texts = [row["title"].decode() for row in rows]
    of_texts, of_tokens = loaded.predict({"title": texts}), loaded.predict({"title": decoded(run, rows)["title"]})
    np.testing.assert_array_equal(of_texts["logits"], of_tokens["logits"])


def test_texts_by_a_vocabulary_in_the_file(tmp_path):
    untrained.write_dataset(tmp_path / "data", {"image": "image", "text": "text"})
    config = config_lib.load("configs/mm_imdb.py:small")
    config.data.dir = str(tmp_path / "data")
    untrained.shrink(config, tmp_path)
    model, rows = untrained.saved_model(config)
    export.export(model, tmp_path / "model.stablehlo")
    (tmp_path / "vocab.txt").unlink()
    loaded = serving.load(tmp_path / "model.stablehlo")
    run = ByPattern(model.module, model.variables, model.inputs, model.info, model.means)
    said = loaded.predict({"text": [row["text"].decode() for row in rows[:3]]})
    of_tokens = loaded.predict({"text": run.decode("text", [row["text"] for row in rows[:3]])})
    np.testing.assert_array_equal(said["logits"], of_tokens["logits"])


def test_jax_and_numpy_are_enough(exported, loaded, run, tmp_path):
    arrays = {m: named(x) for m, x in decoded(run, exported[2][:3]).items()}
    rows, said = tmp_path / "rows.npz", tmp_path / "said.npz"
    np.savez(rows, **{f"{m}/{name}": x for m, parts in arrays.items() for name, x in parts.items()})
    command = [sys.executable, "-m", "tests.serving.only_jax", str(exported[0]), str(rows), str(said)]
    subprocess.run(command, check=True)
    for name, values in loaded.predict(arrays).items():
        np.testing.assert_allclose(np.load(said)[name], values, rtol=1e-5, atol=1e-6)


def test_texts_without_their_package(exported, monkeypatch):
    texts = Texts("text", {"kind": "vocabulary", "file": "tokenizers/text/vocab.txt"}, 8, {})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.delitem(sys.modules, "umemma_jax.data.tokenizer", raising=False)
    with pytest.raises(UserError, match="text: texts need the package tokenizers: install it, or give token ids"):
        texts.encode(["a"])


# Bad input.

TABLE = np.zeros((2, 3), np.float32)
TITLE = {
    "tokens": np.zeros((2, 8), np.int32),
    "weights": np.ones((2, 8), np.float32),
    "length": np.full(2, 8, np.int32),
}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"tabel": TABLE}, "'tabel': no input of this model, which are table, title, digit"),
        ({}, "no row has any input: give some of table, title, digit"),
        ({"table": TABLE[:0]}, "no row has any input"),
        ({"table": TABLE.astype(float)}, "table: float64 instead of float32"),
        ({"table": TABLE.tolist()}, "table: list instead of an array of float32"),
        ({"table": TABLE[:, :2]}, r"table: shape \[2, 2\] instead of \[N, 3\]"),
        ({"table": TABLE + np.float32(np.inf)}, "table: infinite numbers in values"),
        ({"title": TABLE}, "title: arrays values instead of"),
        ({"title": {"tokens": TITLE["tokens"]}}, "title: arrays tokens instead of tokens, weights, length"),
        ({"title": {**TITLE, "length": np.zeros(2)}}, r"title.length: float64 instead of int32"),
        ({"title": {**TITLE, "length": np.array([9, -1], np.int32)}}, "title.length: from -1 to 9, not from 0 to 8"),
        ({"title": {**TITLE, "length": np.zeros(3, np.int32)}}, "title: .* are not of the same number of rows"),
        ({"title": ["red", None]}, "title: row 1 is NoneType instead of a text"),
        ({"table": TABLE, "digit": np.zeros((3, 8, 8, 1), np.uint8)}, "not of the same number of rows"),
    ],
)
def test_inputs_that_cannot_be(loaded, inputs, message):
    with pytest.raises(UserError, match=message):
        loaded.predict(inputs)


def test_a_mask_that_cannot_be(loaded):
    with pytest.raises(UserError, match=r"present: bool\[2, 2\] instead of bool\[2, 3\]"):
        loaded.predict({"table": TABLE}, np.ones((2, 2), bool))


def test_a_row_that_lacks_what_is_required(exported, tmp_path):
    model, path = exported[1], tmp_path / "model.stablehlo"
    export.export(untrained.with_required(model, "title"), path)
    with pytest.raises(UserError, match=r"row 0: lacks 'title', which this model requires"):
        serving.load(path).predict({"table": TABLE})


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing.stablehlo: cannot be read .No such file"):
        serving.load(tmp_path / "nothing.stablehlo")
    with pytest.raises(UserError, match=r"cannot be read .Is a directory"):
        serving.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "is no exported model, or a damaged one"),
        (lambda data: b"no model", "is no exported model, or a damaged one"),
        (lambda data: data[:-100], "is no exported model, or a damaged one"),
        (lambda data: data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :], "is no exported model, or a damaged"),
    ],
)
def test_a_damaged_file(exported, tmp_path, change, message):
    path = tmp_path / "damaged.stablehlo"
    path.write_bytes(change(exported[0].read_bytes()))
    with pytest.raises(UserError, match=f"damaged.stablehlo: {message}"):
        serving.load(path)


def rewritten(source, path, description=None, parts=None, compression=zipfile.ZIP_STORED):
    """A copy of an exported file, with other fields of model.json and other parts, whose CRC-32 are right."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w", compression) as copy:
        for name in archive.namelist():
            content = (parts or {}).get(name, archive.read(name))
            if name == "model.json":
                content = json.dumps({**json.loads(content), **(description or {})})
            copy.writestr(name, content)
    return path


def test_weights_of_another_model(exported, tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    path = rewritten(exported[0], tmp_path / "changed.stablehlo", parts={"weights.npz": buffer.getvalue()})
    with pytest.raises(UserError, match=r"weights.npz does not match its SHA-256"):
        serving.load(path)


def test_another_format_version(exported, tmp_path):
    path = rewritten(exported[0], tmp_path / "other.stablehlo", {"format_version": 9})
    with pytest.raises(UserError, match="format_version 9 instead of 1: export the model again"):
        serving.load(path)


def test_what_another_jax_has_made(exported, tmp_path):
    program = {"platforms": ["cpu"], "calling_convention_version": 99}
    path = rewritten(exported[0], tmp_path / "other.stablehlo", {"program": program, "jax": "9.9"})
    with pytest.raises(UserError, match=r"cannot take this model, which JAX 9.9 has made"):
        serving.load(path)


def test_no_part_is_larger_than_the_file(exported, tmp_path):
    path = rewritten(exported[0], tmp_path / "small.stablehlo", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"model.json is compressed"):
        serving.load(path)
