"""umemma_jax/reporting/report.schema.json: what a report may hold, and that every field is described."""

import importlib.resources
import json

import jsonschema
import pytest

from tests.example_results import (
    all_undefined,
    analysed,
    audio_undefined,
    example_results,
    multi_label,
    six_modalities,
    three_modalities,
    uncalibrated,
)
from umemma_jax.reporting.markdown import report_markdown
from umemma_jax.reporting.page_mix import deployment_mix
from umemma_jax.reporting.page_table import pattern_table
from umemma_jax.reporting.report import write_report

SCHEMA = json.loads(importlib.resources.files("umemma_jax.reporting").joinpath("report.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
OLDER = {
    "two": example_results(),
    "without ceilings": example_results(ceilings={}),
    "three": three_modalities(),
    "six": six_modalities(),
    "multi-label": multi_label(),
    "audio undefined": audio_undefined(),
    "all undefined": all_undefined(),
    "eta": example_results() | {"eta": {"kind": "audio", "rate": 0.5, "table_sha256": {}}},
}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", OLDER)
@pytest.mark.parametrize("form", [dict, analysed, lambda results: uncalibrated(analysed(results))])
def test_results_are_as_described(name, form):
    VALIDATOR.validate(json.loads(json.dumps(form(OLDER[name]))))


def test_what_is_written_is_as_described(tmp_path):
    write_report(analysed(multi_label()), tmp_path)
    VALIDATOR.validate(json.loads((tmp_path / "report.json").read_text()))


def test_a_bias_without_labels_is_as_described():
    results = json.loads(json.dumps(analysed(example_results())))
    found = {"complete_examples": 9, "patterns": results["patterns"], "gained": {"image": [-0.1, 0.1]}}
    VALIDATOR.validate({**results, "label_free_bias": {**found, "bias": {"image": [0.5, -0.5]}}})
    assert not VALIDATOR.is_valid({**results, "label_free_bias": found})


def objects(schema, place=()):
    """Every schema within a schema, with the names on the way to it."""
    yield place, schema
    for key in ("properties", "$defs"):
        for name, part in schema.get(key, {}).items():
            yield from objects(part, (*place, name))
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            yield from objects(schema[key], (*place, key))


def test_every_field_is_described():
    unnamed = {"additionalProperties", "items"}
    named = [(place, schema) for place, schema in objects(SCHEMA) if not place or place[-1] not in unnamed]
    assert len(named) > 100
    assert [".".join(place) for place, schema in named if not schema.get("description")] == []


def test_every_example_key_is_named():
    """No name that the examples use is known only as 'any other'."""
    assert set(analysed(multi_label())) <= set(SCHEMA["properties"])


WRONG = [
    (("examples",), 0),
    (("patterns", "image", "accuracy"), 94.9),
    (("patterns", "image", "accuracy"), "94.9 %"),
    (("uncertainty", "patterns", "image"), [0.9]),
    (("calibration", "patterns", "image", "before"), None),
    (("rate_maps", 0, "values", 0, 0), "high"),
    (("missing_rates", 0, "kind"), None),
    (("accurracy",), 0.9),
]


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_anything_else_is_refused(place, value):
    results = json.loads(json.dumps(analysed(example_results())))
    target = results
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    assert not VALIDATOR.is_valid(results)


def numbers(tree, place=()):
    """Places of all fractional numbers; of a list those of its first entry stand for all."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(min(len(tree), 1)):
            yield from numbers(tree[key], (*place, key))
    elif isinstance(tree, float):
        yield place


def test_what_may_be_null_is_a_dash():
    text = json.dumps(analysed(example_results()))
    nulls = 0
    for place in numbers(json.loads(text)):
        results = json.loads(text)
        target = results
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = None
        if place[0] != "timing" and VALIDATOR.is_valid(results):
            nulls += 1
            assert not {"None", "nan"} & set(report_markdown(results).replace(",", " ").split()), place
            pattern_table(results), deployment_mix(results, "value", "lost")
    assert nulls > 80
