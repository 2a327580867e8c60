import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.said import split
from umemma_jax import cli
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, logits_file, robustness
from umemma_jax.evaluation.split_logits import log_prior

ROOT = Path(__file__).resolve().parents[2]


def arrays(test, logits=None, prefix=""):
    """Of a split, under the names of docs/logits.md."""
    found = {f"{prefix}labels": test.label, f"{prefix}present": test.available}
    if not prefix:
        found |= {"modalities": list(test.modalities), "classes": list(test.classes)}
    return found | {f"{prefix}logits/{name}": x for name, x in (test.patterns if logits is None else logits).items()}


def read(folder, content):
    np.savez(folder / "said.npz", **content)
    return logits_file.read(folder / "said.npz")


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("complete", [False, True])
def test_a_file_of_every_pattern_says_what_the_split_says(tmp_path, multi_label, complete):
    test, validation = (split(multi_label=multi_label, complete=complete, seed=seed) for seed in (0, 1))
    found = read(tmp_path, arrays(test) | arrays(validation, prefix="validation/"))
    assert (found.prior_source, found.is_ensemble) == ("validation examples", False)
    options = robustness.Options(rates=(0.0, 0.5), seeds=2, resamples=20)
    expected = (dataclasses.replace(said, unimodal={}) for said in (test, validation))
    report = robustness.report(found.test, found.validation, options)
    assert report.results == robustness.report(*expected, options).results


def test_single_modalities_make_the_ensemble_that_counts_the_prior_once(tmp_path):
    test = split(complete=False)
    share = np.array([0.4, 0.3, 0.2, 0.1])
    found = read(tmp_path, arrays(test, test.unimodal) | {"prior": share})
    assert (found.prior_source, found.is_ensemble, found.validation) == ("given", True, None)
    both = test.available.all(axis=1)
    expected = test.unimodal["a"] + test.unimodal["b"] - np.log(share)
    np.testing.assert_allclose(found.test.patterns["a+b"][both], expected[both], rtol=1e-5)
    np.testing.assert_array_equal(
        found.test.unimodal["a"][test.available[:, 0]], test.unimodal["a"][test.available[:, 0]]
    )

    validation = arrays(split(seed=1), test.unimodal, "validation/")
    found = read(tmp_path, arrays(test, test.unimodal) | validation)
    np.testing.assert_allclose(found.prior, log_prior(split(seed=1).label, 4))


def test_a_row_is_read_only_where_the_example_has_all_of_the_pattern(tmp_path):
    """An example that lacks b has, under a+b, its logits under a; what stands under a+b and b itself may be NaN."""
    test = split(complete=False)
    logits = {name: test.patterns[name].copy() for name in test.names}
    for name in test.names:
        kept = [m in name.split("+") for m in "ab"]
        logits[name][~test.available[:, kept].all(axis=1)] = np.nan
    found = read(tmp_path, arrays(test, logits)).test
    for name, rows in zip(test.names, test.left >= 0, strict=True):
        np.testing.assert_allclose(found.patterns[name][rows], test.patterns[name][rows], atol=1e-6)


def test_names_may_stand_in_any_order_and_ceilings_be_given(tmp_path):
    test = split()
    content = arrays(test, {"b+a" if name == "a+b" else name: x for name, x in test.patterns.items()})
    found = read(tmp_path, content | {f"unimodal/{m}": 2 * x for m, x in test.unimodal.items()}).test
    np.testing.assert_array_equal(found.patterns["a+b"], test.patterns["a+b"])
    np.testing.assert_array_equal(found.unimodal["b"], 2 * test.unimodal["b"])


LABELS = split().label
LOGITS = split().unimodal["a"]
WRONG = {
    "labels outside the classes": ({"labels": LABELS + 1}, r"labels: are 1 to 4: there are classes 0 to 3"),
    "negative labels": ({"labels": LABELS - 1}, r"labels: are -1 to 2: there are classes 0 to 3"),
    "labels that are no numbers": ({"labels": LABELS.astype(str)}, r"labels: are <U21\[200\], not int \[N\]"),
    "labels of fractions": ({"labels": LABELS + 0.5}, r"labels: are float64\[200\], not int \[N\]"),
    "labels in columns that are not the classes": ({"labels": np.eye(3)[[0, 1]]}, r"labels: have 3 columns"),
    "labels of other columns": ({"labels": 2 * np.eye(4)[LABELS]}, r"labels: .* must hold 0 and 1"),
    "no labels": ({"labels": None}, r"labels: is missing"),
    "empty labels": ({"labels": np.zeros(0, int)}, r"labels: are of no examples"),
    "objects": ({"labels": np.array([None] * 200)}, r"is not what numpy\.savez writes of plain arrays"),
    "fewer logits": ({"logits/a": LOGITS[:-1]}, r"logits/a: is \[199, 4\], not \[200, 4\]"),
    "logits of other classes": ({"logits/a": LOGITS[:, :3]}, r"logits/a: is \[200, 3\], not \[200, 4\]"),
    "NaN": ({"logits/a": np.where(np.arange(200)[:, None] == 7, np.nan, LOGITS)}, r"logits/a: is not finite in row 7"),
    "too large for float32": ({"logits/b": LOGITS.astype(float) * 1e300}, r"logits/b: is not finite in row 0"),
    "logits that are no numbers": ({"logits/a": LOGITS > 0}, r"logits/a: is of type bool"),
    "no pattern": ({"logits/c": LOGITS}, r"logits/c: unknown pattern 'c', join some of a, b by \+"),
    "a pattern twice": ({"logits/b+a": LOGITS}, r"logits/b\+a: stands twice"),
    "a pattern missing": ({"logits/b": None}, r"logits/b: is missing: give every pattern, or each modality alone"),
    "another array": ({"logit/a": LOGITS}, r"logit/a: unknown, see docs/logits\.md"),
    "presence of other modalities": ({"present": np.ones((200, 3), bool)}, r"present: is \[200, 3\], not \[200, 2\]"),
    "presence that is no truth": ({"present": np.full((200, 2), 0.5)}, r"present: must hold True and False"),
    "one modality": ({"modalities": ["a"]}, r"modalities: name 2 to 16"),
    "a modality twice": ({"modalities": ["a", "a"]}, r"modalities: a name is empty or stands twice"),
    "a modality like a pattern": ({"modalities": ["a", "a+b"]}, r"modalities: a name has a '\+'"),
    "classes that are numbers": ({"classes": np.arange(4)}, r"classes: are no names, an array of str"),
    "a prior of other classes": ({"prior": np.ones(3) / 3}, r"prior: is not of 4 shares in \(0, 1\)"),
    "a prior of nothing": ({"prior": np.array([0, 0.5, 0.25, 0.25])}, r"prior: is not of 4 shares"),
    "a uni-modal model alone": ({"unimodal/a": LOGITS}, r"unimodal/b: is missing: give them of every modality"),
    "a uni-modal model of several": (
        {"unimodal/a": LOGITS, "unimodal/b": LOGITS, "unimodal/a+b": LOGITS},
        r"unimodal/a\+b: is of several modalities",
    ),
    "ceilings of what is a ceiling": (
        {"logits/a+b": None, "unimodal/a": LOGITS, "unimodal/b": LOGITS},
        r"unimodal: are ceilings of a model with logits of every pattern",
    ),
    "validation without logits": ({"validation/labels": LABELS}, r"validation/logits/a: is missing"),
    "validation of other patterns": (
        {"validation/labels": LABELS, "validation/logits/a": LOGITS, "validation/logits/b": LOGITS},
        r"validation/logits: are not of the same patterns as logits",
    ),
    "validation that is multi-label": (
        {"validation/labels": np.eye(4)[LABELS], **{f"validation/logits/{name}": LOGITS for name in ("a", "b", "a+b")}},
        r"validation/labels: are not of the form of labels",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_said_in_one_line(tmp_path, change, message):
    content = {name: value for name, value in (arrays(split()) | change).items() if value is not None}
    with pytest.raises(UserError, match=f"^[^\n]*said\\.npz:? [^\n]*{message}[^\n]*$"):
        read(tmp_path, content)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "said.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"said\.npz is not what numpy\.savez writes"):
        logits_file.read(tmp_path / "said.npz")
    with pytest.raises(UserError, match=r"other\.npz cannot be read: No such file"):
        logits_file.read(tmp_path / "other.npz")


def test_a_flipped_bit_is_found_or_harmless(tmp_path):
    np.savez(tmp_path / "said.npz", **arrays(split(examples=20)))
    whole, rng = (tmp_path / "said.npz").read_bytes(), np.random.default_rng(0)
    expected, found = logits_file.read(tmp_path / "said.npz").test, 0
    for bit in rng.integers(8 * len(whole), size=300):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "said.npz").write_bytes(damaged)
        try:
            said = logits_file.read(tmp_path / "said.npz").test
            for name in expected.names:
                np.testing.assert_array_equal(said.patterns[name], expected.patterns[name])
        except UserError as error:
            assert "\n" not in str(error)
            found += 1
    assert found > 150


# The command.

WITHOUT_JAX = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "transformers"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
from umemma_jax import cli
sys.exit(cli.run(sys.argv))
"""


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_report_is_written_where_there_is_no_jax(tmp_path, multi_label):
    test, validation = (split(multi_label=multi_label, complete=False, seed=seed) for seed in (0, 1))
    np.savez(tmp_path / "theirs.npz", **arrays(test), **arrays(validation, prefix="validation/"))
    command = ["--mode=report", f"--logits={tmp_path / 'theirs.npz'}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX, *command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("theirs: given logits with modalities missing")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"report", "calibration.json"}
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "Seed" not in text and "stand-in" not in text
    assert (tmp_path / "run" / "report" / "missing_tables.npz").exists()
    decided = decisions.read(tmp_path / "run" / "report", test.names, len(test.label))
    np.testing.assert_array_equal(decided.label, test.label)
    assert decided.decided.shape == (len(test.names), *test.label.shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=report"], "--logits is missing"),
        (["--mode=report", "--logits=x.npz", "--config=configs/quickstart.py"], "--mode=report takes no recipe"),
        (["--mode=report", "--logits=x.npz", "--config.seed=1"], "unknown argument '--config.seed=1'"),
        (["--mode=eval", "--logits=x.npz"], "--logits=x.npz: is for --mode=report, this is --mode=eval"),
    ],
)
def test_flags_that_do_not_go_together(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        cli.parse(["main.py", *arguments])


def test_without_a_workdir_it_is_named_by_the_file():
    command = cli.parse(["main.py", "--mode=report", "--logits=there/theirs.npz"])
    assert (command.workdir, command.logits, command.config) == (Path("runs/theirs"), Path("there/theirs.npz"), None)


def test_the_documented_pytorch_example_writes_such_a_file(tmp_path):
    torch = pytest.importorskip("torch")
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "logits.md").read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) < 35
    example = {}
    exec(code, example)

    class Model(torch.nn.Module):
        def forward(self, inputs):
            return sum(x[:, :4] for x in inputs.values())

    test, validation = ({name: torch.randn(30, 5) for name in ("a", "b")} for _ in range(2))
    labels = torch.arange(30) % 4
    example["save"](tmp_path / "said.npz", Model(), list("wxyz"), test, labels, validation, labels)
    found = logits_file.read(tmp_path / "said.npz")
    np.testing.assert_allclose(found.test.patterns["a+b"], (test["a"] + test["b"])[:, :4], rtol=1e-6)
    assert len(found.validation.label) == 30 and found.test.classes == tuple("wxyz")
