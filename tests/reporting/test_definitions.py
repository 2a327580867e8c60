"""umemma_jax/reporting/definitions.py: a report explains the words that it uses, and no others."""

from tests.example_results import analysed, example_results
from umemma_jax.reporting.definitions import definitions


def test_definitions_are_of_what_the_report_holds():
    assert "mAP" not in definitions({"metric": "accuracy"})
    assert "mAP" in definitions({"metric": "macro_f1"})
    assert "tuned threshold" not in definitions({"metric": "macro_f1"})
    assert "tuned threshold" in definitions({"metric": "macro_f1", "thresholds": {}})


def test_what_is_known_of_more_is_explained():
    further = definitions(analysed(example_results())).keys() - definitions(example_results()).keys()
    assert {"interval", "ECE", "conformal set", "Shapley value", "entropy", "two rates"} <= further
