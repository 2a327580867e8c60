import argparse
import sys

import numpy as np
import pytest

from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data_prep.build import console
from umemma_jax.errors import UserError


def parse(*arguments):
    return vars(console.Parser("data_prep.example", "An example.").parse_args(arguments))


def test_arguments_of_every_preparation():
    assert parse("--out=here") == {"out": "here", "seed": 0, "overwrite": False}
    assert parse("--out", "here", "--seed", "7", "--overwrite") == {"out": "here", "seed": 7, "overwrite": True}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: --out"),
        (["--out=x", "--seed=-1"], "'-1' is not a whole number from 0 on"),
        (["--out=x", "--seed=one"], "'one' is not a whole number from 0 on"),
        (["--out=x", "--over"], "unrecognized arguments: --over"),
    ],
)
def test_wrong_arguments(arguments, complaint):
    with pytest.raises(UserError, match=f"{complaint}; see --help"):
        parse(*arguments)


def test_interruption_is_no_traceback(monkeypatch):
    def prepare(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["example", "--out=x"])
    with pytest.raises(UserError, match="interrupted, nothing was written"):
        console.run(console.Parser("data_prep.example", "An example."), prepare)


def test_plain_lines_off_a_terminal(capsys):
    assert list(console.progress(range(10), "counting", 10)) == list(range(10))
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"counting: {done} of 10" for done in (3, 5, 8, 10)]
    assert output.err == ""


def test_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(console.progress(iter("ab"), "counting", 2)) == ["a", "b"]
    output = capsys.readouterr()
    assert output.out == ""
    assert "counting: 100%" in output.err


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", ""])
def test_count_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 1 on"):
        console.count(text)


@pytest.mark.parametrize("text", ["1", "-0.1", "nan", "x"])
def test_share_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="share from 0 to below 1"):
        console.share(text)


def test_many_classes_are_summed_up(tmp_path, capsys):
    classes = [f"class {number}" for number in range(101)]
    modalities = {"text": Modality(kind="text", encoding="utf-8"), "vector": Modality("tabular", "float32", shape=(1,))}
    with DatasetWriter(tmp_path / "out", name="many", description="", classes=classes, modalities=modalities) as writer:
        for number in range(150):
            vector = np.ones(1, np.float32) if number < 30 else None
            writer.write("train", id=str(number), label=number % 101, text="x", vector=vector)
    console.print_counts(open_dataset(tmp_path / "out"))
    console.print_present(open_dataset(tmp_path / "out"))
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["class", "fewest", "most", "all"],
        ["train", "1", "2", "150"],
        ["present", "text", "vector", "all"],
        ["train", "150", "30", "150"],
    ]
