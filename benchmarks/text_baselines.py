"""Texts from scratch beside the classroom's baseline: TF-IDF and logistic regression of scikit-learn.

On any prepared dataset with texts, e.g. those of ../shared/data (reviews are a table, see data_prep.table):

python -m data_prep.mm_imdb --raw=../shared/data/product_labels_mmimdb_layout --out=runs/data/labels
python -m data_prep.food101 --raw=../shared/data/product_pairs_upmc_layout --out=runs/data/pairs
python -m benchmarks.text_baselines --data=runs/data/labels --data=runs/data/pairs --data=runs/data/reviews

Ours is the text tower of the preset `small` after the uni-modal stage; the other modalities train beside it, which
does not touch it. The baselines are TfidfVectorizer of words, as it comes, and of the n-grams that ours sees, with C
chosen by the mean average precision on the validation split. All see the same texts, and are judged on those examples
of the test split that have any: mean average precision, macro-F1, and where examples have several classes macro-F1 at
thresholds tuned on the validation split.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union

from benchmarks import workload
from umemma_jax import command, experiment, presets
from umemma_jax.data import example
from umemma_jax.evaluation import calibration, evaluate, metrics
from umemma_jax.experiment import Experiment
from umemma_jax.training import train

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # C of logistic regression
ITERATIONS = 300


@dataclasses.dataclass(frozen=True)
class Split:
    """The N examples of a split that have a text; `label` is int [N], or bool [N, K]."""

    texts: list[str]
    label: np.ndarray


Logits = tuple[np.ndarray, np.ndarray]  # of the validation and the test split, [N, K]


def main() -> None:
    """Prints a line for each dataset and method."""
    parser = command.Parser(description=__doc__.partition("\n\n")[0], formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="DIR", help="prepared dataset; several times")
    parser.add_argument("--text", default="text", help="its modality of texts, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of ours, default %(default)s")
    arguments = parser.parse_args()
    print(f"{'data':<12}{'method':<44}{'mAP':>6}{'F1':>6}{'tuned':>7}{'seconds':>9}")
    for folder in arguments.data:
        compare(Path(folder), arguments.text, arguments.seed)


def compare(folder: Path, text: str, seed: int) -> None:
    """Prints the lines of one dataset."""
    config = presets.small(str(folder), "ume")
    config.seed = seed
    built = experiment.build(config)
    training = read(built, text, built.config.data.train_split, built.train_rows)
    validation = read(built, text, *built.validation)
    test = read(built, text, built.config.data.test_split)
    classes = len(built.dataset.info.classes)
    methods = {
        "TF-IDF of words, logistic regression": lambda: baseline(words(), training, validation, test, classes),
        "TF-IDF of n-grams, logistic regression": lambda: baseline(ngrams(), training, validation, test, classes),
        f"ours, {config.inputs[text].encoder.name}": lambda: ours(built, text),
    }
    for method, predict in methods.items():
        start = time.perf_counter()
        of_validation, of_test = predict()
        seconds = time.perf_counter() - start
        scores = [metrics.of_logits(of_test, test.label)["macro_f1"]]
        if test.label.ndim == 2:
            thresholds = calibration.class_thresholds(of_validation, validation.label)
            decided = calibration.probabilities(of_test, True) > thresholds
            scores.append(metrics.scores(decided, test.label, classes)["macro_f1"])
        precision = mean_average_precision(of_test, test.label)
        tuned = f"{100 * scores[1]:7.1f}" if len(scores) > 1 else f"{'-':>7}"
        print(
            f"{folder.name:<12}{method:<44}{100 * precision:6.1f}{100 * scores[0]:6.1f}{tuned}{seconds:9.1f}",
            flush=True,
        )


def read(built: Experiment, text: str, split: str, rows: np.ndarray | None = None) -> Split:
    """The examples of a split, or of some of its rows, that have a text."""
    source = built.dataset.source(split)
    rows = np.arange(len(source)) if rows is None else rows
    values = [example.bytes_value(row, text) for row in source.examples(rows)]
    there = np.array([value is not None for value in values])
    label = np.asarray(source.labels()[rows][there])
    label = label > 0 if label.ndim == 2 else label
    return Split([value.decode() for value in values if value is not None], label)


def mean_average_precision(logits: np.ndarray, label: np.ndarray) -> float:
    """Over classes, of the probabilities."""
    probabilities = calibration.probabilities(logits, label.ndim == 2)
    return metrics.mean_average_precision(probabilities, calibration.indicators(label, logits.shape[1]))


def words() -> TfidfVectorizer:
    """As it comes."""
    return TfidfVectorizer()


def ngrams() -> object:
    """One and two words, and 3 to 5 letters within a word."""
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    return make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), letters)


def baseline(vectorizer: object, training: Split, validation: Split, test: Split, classes: int) -> Logits:
    """Logits of logistic regression at the best C."""
    fitted = make_pipeline(vectorizer).fit(training.texts)
    x, of_validation, of_test = (fitted.transform(split.texts) for split in (training, validation, test))
    best = max(
        _regressions(x, training.label),
        key=lambda model: mean_average_precision(_logits(model, of_validation, classes), validation.label),
    )
    return _logits(best, of_validation, classes), _logits(best, of_test, classes)


def _regressions(x: object, label: np.ndarray) -> Iterator[LogisticRegression | OneVsRestClassifier]:
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=ITERATIONS)
        model = OneVsRestClassifier(model) if label.ndim == 2 else model
        yield model.fit(x, label.astype(int))


def _logits(model: LogisticRegression | OneVsRestClassifier, x: object, classes: int) -> np.ndarray:
    """[N, K]; classes that no training example has are below all others."""
    found = model.decision_function(x)
    found = np.stack([-found / 2, found / 2], axis=1) if found.ndim == 1 else found
    if isinstance(model, OneVsRestClassifier):
        return found
    logits = np.full((len(found), classes), -np.inf)
    logits[:, model.classes_] = found
    return logits


def ours(built: Experiment, text: str) -> Logits:
    """Logits of the text's own head after the uni-modal stage."""
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as workdir:
        variables = train.train(built, Path(workdir)).unimodal
    evaluator = evaluate.Evaluator(built.model, built.mesh, built.means)
    split, rows = built.validation

    def logits(split: str, rows: np.ndarray | None) -> np.ndarray:
        encoded = evaluator.encode(variables, built.batches(split, rows))
        arrays = evaluate.on_host(encoded, encoded)
        return arrays[f"unimodal/{text}"][arrays["available"][:, built.modalities.index(text)]]

    return logits(split, rows), logits(built.config.data.test_split, None)


if __name__ == "__main__":
    workload.run(main)
