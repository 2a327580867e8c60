"""The arena's page: built from small files of results, of claims as data, with no number that is not in them."""

import json

import numpy as np
import pytest

from benchmarks import arena_claims, arena_page, arena_results
from umemma_jax.errors import UserError
from umemma_jax.evaluation import verdict

MEANS = {"ume": 0.80, "ume_mma": 0.85, "late_fusion": 0.75, "tcmax": 0.92}


def cell(means=MEANS, seed=0, judged=True):
    """Five seeds of each method; with comparisons, as if these were over examples too."""
    rng = np.random.default_rng(seed)
    measures = (*verdict.MEASURES, "nll")
    values = {
        name: {measure: (mean + 0.004 * rng.normal(size=5)).tolist() for measure in measures}
        for name, mean in means.items()
    }
    runs = {name: verdict.of_seeds(own) for name, own in values.items()}
    compared = verdict.by_measure(runs, measures, list(arena_results.REFERENCES))
    fixed = {"dataset": "d", "test_examples": 400, "encoders": "frozen", "metric": "accuracy", "patterns": 3}
    results = {**fixed, "seeds": [0, 1, 2, 3, 4], "methods": values, "command": "python main.py --config=quickstart"}
    return {**results, **({"comparisons": {m: compared[m]["comparisons"] for m in measures}} if judged else {})}


def built(found):
    return arena_page.page("# The arena\n\nBy hand.\n\n## Results\n\nOld numbers 12.3.\n", found)


def test_the_page_of_the_site_is_what_the_command_builds_of_its_files():
    text = arena_page.PAGE.read_text()
    assert arena_page.page(text, arena_results.read()) == text


def test_what_stands_above_is_kept_and_what_stood_below_is_not():
    text = built({"uci_mfeat": cell()})
    assert text.startswith("# The arena\n\nBy hand.\n\n## Results\n") and "12.3" not in text


def test_a_method_that_is_better_is_named_with_its_cells():
    found = {"av_mnist_small": cell(), "uci_mfeat": cell(seed=1)}
    words = built(found)
    assert (
        "Better than UME-MMA by more than the error, by one measure or more: TCMax on av_mnist_small, uci_mfeat."
        in words
    )
    assert "Better than UME average by more than the error: UME-MMA (complete +" in words


def test_where_no_method_is_better_the_page_says_so():
    even = dict.fromkeys(MEANS, 0.8)
    words = built({"av_mnist_small": cell(even), "uci_mfeat": cell(even, seed=1)})
    for reference in ("UME average", "UME-MMA"):
        assert f"No method beats {reference} by more than the error, on any of 2 cells." in words


def test_a_cell_without_comparisons_over_examples_has_no_verdict():
    words = built({"uci_mfeat": cell(judged=False)})
    assert "No verdict on uci_mfeat" in words and "Better than" not in words and "No method beats" not in words
    assert "Differences are over the seeds alone." in words and "| TCMax" in words.replace("  ", " ")


def test_a_budget_is_a_table():
    budget = {"ume": {"epochs": 20, "seconds": 12.34}, "tcmax": {"epochs": 30, "trials": 8}}
    lines = [" ".join(line.split()) for line in built({"uci_mfeat": cell() | {"budget": budget}}).splitlines()]
    assert "| method | epochs | seconds | trials |" in lines
    assert "| UME average | 20 | 12.34 | \u2013 |" in lines and "| TCMax | 30 | \u2013 | 8 |" in lines


def test_an_empty_cell_has_its_command_and_a_full_one_has_none():
    words = built({"uci_mfeat": cell()})
    assert "# uci_mfeat_eta70: " in words and "# uci_mfeat: " not in words
    assert len(arena_results.CELLS) == 12 and words.count("--mode=compare") == 11


def test_ranks_are_over_datasets_with_complete_training():
    found = {"av_mnist_small": cell(), "av_mnist_small_eta70": cell(), "uci_mfeat": cell(seed=1)}
    ranks, names = arena_page.ranked(found)
    assert names == ["av_mnist_small", "uci_mfeat"]
    assert dict(zip(ranks.methods, ranks.average, strict=True)) == {
        "tcmax": 1,
        "ume_mma": 2,
        "ume": 3,
        "late_fusion": 4,
    }
    assert arena_page.ranked({"uci_mfeat": cell()})[0] is None


def test_methods_that_a_dataset_lacks_are_not_ranked():
    lacking = {name: mean for name, mean in MEANS.items() if name != "late_fusion"}
    ranks, _ = arena_page.ranked({"av_mnist_small": cell(), "uci_mfeat": cell(lacking)})
    assert "late_fusion" not in ranks.methods


def claimed(method, expected, reference="ume"):
    return arena_claims.Claim("paper", "It is so.", method, reference, "complete", expected)


@pytest.mark.parametrize(
    ("claim", "left"),
    [
        (claimed("tcmax", ("better",)), "confirmed in 1 of 1 (uci_mfeat)"),
        (claimed("tcmax", ("worse",)), "contradicted in 1 of 1 (uci_mfeat)"),
        (claimed("qmf", ("better",)), "not run"),
        (claimed(arena_claims.ANY, ("undecided", "worse")), "confirmed in 1 of 2; contradicted in 1 of 2 (uci_mfeat)"),
    ],
)
def test_what_is_left_of_a_claim(claim, left):
    measures = {"uci_mfeat": arena_results.measures(cell())}
    assert arena_claims.what_is_left(claim, measures, arena_results.REFERENCES) == left


def test_every_claim_can_be_told_by_what_the_arena_measures():
    for claim in arena_claims.CLAIMS:
        assert claim.measure in verdict.MEASURES and claim.reference in arena_results.REFERENCES
        assert set(claim.expected) <= {"better", "worse", "undecided"}


def test_a_comparison_becomes_a_cell_with_its_values():
    measures = {
        "complete": {"methods": {"ume": [0.123456789], "ume_mma": [0.5]}, "comparisons": [{"difference": 1 / 3}]},
        "nll": {"methods": {"ume": [None], "ume_mma": [None]}, "comparisons": []},
    }
    methods = {name: {"seeds": [0], "patterns": {"a+b": {}, "a": {}, "b": {}}} for name in ("ume", "ume_mma")}
    paired = {"metric": "accuracy", "verdict": {"measures": measures}}
    comparison = {"dataset": "d", "examples": 9, "methods": methods, "paired": paired}
    found = arena_results.of_comparison(comparison, "frozen", "python main.py")
    assert found["methods"] == {"ume": {"complete": [0.123457]}, "ume_mma": {"complete": [0.5]}}
    assert found["comparisons"]["complete"] == [{"difference": 0.333333}] and found["patterns"] == 3
    assert set(arena_results.FIELDS) <= set(found)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("elsewhere", {}, "no cell of the arena has this name"),
        ("uci_mfeat", {"seeds": [0, 1]}, r"methods\.ume\.complete has other than one value a seed"),
        ("uci_mfeat", {"methods": None}, "methods is missing"),
    ],
)
def test_bad_files_end_in_one_line(tmp_path, name, change, message):
    results = {key: value for key, value in (cell() | change).items() if value is not None}
    (tmp_path / f"{name}.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        arena_results.read(tmp_path)


def test_a_comparison_that_cannot_be_added_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match="--cell=nowhere: no cell of the arena, use one of av_mnist_small"):
        arena_page.add(tmp_path / "comparison.json", "nowhere", "")
    with pytest.raises(UserError, match="cannot be read"):
        arena_page.add(tmp_path / "comparison.json", "uci_mfeat", "")
    methods = {"ume": {"seeds": [0], "patterns": {}}}
    paired = {"metric": "accuracy", "verdict": {"measures": {}}}
    complete = {"dataset": "d", "examples": 9, "methods": methods, "paired": paired}
    (tmp_path / "comparison.json").write_text(json.dumps(complete))
    with pytest.raises(UserError, match="its protocol is eta = None, not that of uci_mfeat_eta70: name its own cell"):
        arena_page.add(tmp_path / "comparison.json", "uci_mfeat_eta70", "")
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(UserError, match="the comparison has no verdict"):
        arena_page.add(tmp_path / "comparison.json", "uci_mfeat", "")
