"""umemma_jax/reporting/reading.py: a report is read as it was written, or refused in one line."""

import json

import numpy as np
import pytest

from tests.example_results import all_undefined, audio_undefined, example_results, multi_label, three_modalities
from umemma_jax import checksums
from umemma_jax.errors import UserError
from umemma_jax.reporting.definitions import definitions
from umemma_jax.reporting.reading import read_report
from umemma_jax.reporting.report import write_report
from umemma_jax.reporting.results import compare

SCENES = {
    "two": example_results(),
    "without ceilings": example_results(ceilings={}),
    "three": three_modalities(),
    "multi-label": multi_label(),
    "audio undefined": audio_undefined(),
    "all undefined": all_undefined(),
    "eta": example_results() | {"eta": {"kind": "audio", "rate": 0.5, "table_sha256": {}}},
}


@pytest.mark.parametrize("results", SCENES.values(), ids=SCENES)
def test_what_was_written_is_read(results, tmp_path):
    write_report(results, tmp_path)
    assert read_report(tmp_path / "report.json") == results | {"definitions": definitions(results)}


def test_a_report_of_a_version_without_checksums_is_read(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(example_results()))
    assert read_report(tmp_path / "report.json") == example_results()


@pytest.mark.parametrize("headline", ["tuned_macro_f1", None, ["accuracy"]])
def test_a_headline_that_is_no_metric_is_refused(headline, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(example_results() | {"headline": headline}))
    with pytest.raises(UserError, match=r"report\.json is damaged or of another version \(report\.headline is"):
        read_report(path)
    path.write_text(json.dumps(multi_label() | {"headline": "tuned_macro_f1"}))
    assert read_report(path)["headline"] == "tuned_macro_f1"


def every_place(tree, path=()):
    """Paths to all values of nested dicts and lists."""
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from every_place(tree[key], (*path, key))


WRONG = (None, "x", 1.5, -3, True, [], {}, [[]], {"x": None}, float("nan"))


def changed(results, place, value):
    """A copy with another value at the place; without it where the value is ...."""
    copy = json.loads(json.dumps(results))
    target = copy
    for key in place[:-1]:
        target = target[key]
    if value is ...:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return copy


def test_a_report_with_anything_else_in_any_place_is_compared_or_refused_in_one_line(tmp_path):
    """As of another version, or by another hand: without a checksum that would find it."""
    path, refused = tmp_path / "report.json", 0
    results = audio_undefined() | {"eta": {"kind": "audio", "rate": 0.5}}
    for place in every_place(results):
        for value in (..., *WRONG):
            path.write_text(json.dumps(changed(results, place, value)))
            try:
                found = [read_report(path), example_results(seed=7) | {"eta": results["eta"]}]
                compare(found)
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 500


def test_a_report_cut_anywhere_or_with_a_flipped_bit_is_refused_in_one_line(tmp_path):
    write_report(example_results(), tmp_path)
    path = tmp_path / "report.json"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for size in rng.integers(len(whole) - 2, size=50):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"^[^\n]*report\.json is damaged[^\n]*remove it[^\n]*$"):
            read_report(path)
    for bit in rng.integers(8 * len(whole), size=200):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_report(path)  # white space, or the name of the checksum's field
            assert all(found[name] == value for name, value in json.loads(whole).items() if name != checksums.FIELD)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff\xfe\x00", b"[1]", b"null", b'{"a":' * 50_000])
def test_what_is_no_report_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(UserError, match=r"report\.json is damaged or of another version"):
        read_report(tmp_path / "report.json")


def test_a_report_that_was_edited_is_refused(tmp_path):
    write_report(example_results(), tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    content["patterns"]["image"]["accuracy"] = 0.999
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"does not match its checksum.*'{checksums.FIELD}'"):
        read_report(tmp_path / "report.json")
