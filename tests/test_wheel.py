"""A wheel of the repository, alone on its machine: installed where there is no checkout, used in an empty folder."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import umemma_jax
from tests.evaluation import said
from tests.evaluation.test_logits_file import arrays
from tests.processes import ROOT
from tests.weights.test_convert import bert_shapes
from umemma_jax.weights import model_card

pytestmark = pytest.mark.slow
SOURCE = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "configs", "umemma_jax")
BRIEF = (
    "--config.unimodal.epochs=1",
    "--config.fusion.epochs=1",
    "--config.evaluation.seeds=1",
)


def build(kind, source, folder):
    """The file that setuptools makes of a source: kind `wheel` or `sdist`."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=source, check=True, capture_output=True, text=True)
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Built from a copy, in which no earlier build has left anything."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        if (ROOT / name).is_dir():
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=without)
        else:
            shutil.copy(ROOT / name, source / name)
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the source distribution, as those do for whom no wheel fits."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment with the wheel; its dependencies are those of the one that the tests run in.

    Folders that a .pth file names are searched, but their own .pth files, as of an editable install, are not read.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = sysconfig.get_path("purelib", vars=paths)
    with open(f"{packages}/dependencies.pth", "w") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(install, check=True, env=clean_environment())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The user's, empty at first."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def umemma(environment, folder):
    """Runs `umemma` there; returns what it printed. It succeeds without a word on stderr, or fails in one line."""

    def run(*arguments, fails=False):
        command = [environment / "bin" / "umemma", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == fails, done.stderr
        assert len(done.stderr.splitlines()) == fails or not fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def clean_environment():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def table(folder):
    """Dark and bright photos with titles."""
    rng = np.random.default_rng(0)
    with open(folder / "dishes.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "photo", "title", "dish", "split"))
        for number in range(60):
            dish = number % 2
            pixels = rng.integers(150 * dish, 150 * dish + 100, (72, 72, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            title = ("soup of the day", "cake with cream")[dish]
            rows.writerow(
                (number, f"{number}.png", title, title[:4], ("train", "val", "test")[max(0, number - 35) // 12])
            )
    return folder / "dishes.csv"


@pytest.fixture(scope="module")
def trained(umemma, folder, table):
    """The workdir of a run on the table."""
    columns = ("--image=photo", "--text=title", "--label=dish", "--split=split", "--id=id")
    umemma("prep", "table", f"--table={table}", *columns, "--out=dishes")
    umemma(
        "train",
        "--config=food101:small,late_fusion",
        "--config.data.dir=dishes",
        "--config.data.batch_size=16",
        "--workdir=run",
        *BRIEF,
    )
    return folder / "run"


def test_it_claims_one_name_and_holds_every_file(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"umemma_jax"}
    tracked = subprocess.run(["git", "ls-files", "configs", "umemma_jax"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no checkout of git to compare with")
    expected = {re.sub("^configs/", "umemma_jax/configs/", name) for name in tracked.stdout.split()}
    assert expected - {"umemma_jax/configs"} == set(names)


def test_version_and_help(umemma):
    assert umemma("--version") == f"umemma_jax {umemma_jax.__version__}\n"
    said_to_all = umemma("--help")
    for name in ("quickstart", "train", "eval", "predict", "compare", "folds", "export", "report", "prep", "convert"):
        assert f"\n  {name} " in said_to_all
    assert umemma("train", "--help").startswith("usage: umemma train --config=RECIPE")
    assert "\n  table\n" in umemma("prep", "--help")
    assert umemma("prep", "table", "--help").startswith("usage: umemma prep table ")
    assert umemma("convert", "--help").startswith("usage: umemma convert ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "umemma trian: did you mean train?"),
        (["prep", "tabel"], "umemma prep tabel: did you mean table?"),
        (["train", "--config=fod101"], "--config=fod101: did you mean food101?"),
        (["train", "--sedes=3", "--config=food101"], "unknown flag --sedes: usage: umemma train "),
        (["train"], "--config is missing"),
        (["prep", "table", "--table=absent.csv", "--out=x"], "absent.csv"),
        (["convert", "--to=x"], "--from"),
    ],
)
def test_a_slip_ends_in_one_line(umemma, arguments, hint):
    assert hint in umemma(*arguments, fails=True)


def test_quickstart(umemma, folder):
    assert "Report: first/report" in umemma("quickstart", "--workdir=first", *BRIEF)
    assert (folder / "first" / "report" / "report.html").exists()
    assert (folder / "runs" / "data" / "quickstart").is_dir()


def test_a_table_is_prepared_and_a_recipe_trained_on_it(trained):
    results = json.loads((trained / "report" / "report.json").read_text())
    assert results["command"].startswith("umemma train --config=food101:small,late_fusion ")


def test_a_run_predicts_and_reports_again(umemma, trained):
    umemma("predict", f"--workdir={trained}")
    assert list((trained / "predictions").glob("*.csv"))
    shutil.rmtree(trained / "report")
    umemma("eval", f"--workdir={trained}")
    assert (trained / "report" / "report.html").exists()


def test_logits_are_reported_on(umemma, folder):
    np.savez(folder / "theirs.npz", **arrays(said.split()))
    assert "Report: runs/theirs/report" in umemma("report", "--logits=theirs.npz")


def test_a_checkpoint_is_converted(umemma, folder):
    shapes = bert_shapes(width=8, depth=1, vocabulary=20)
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "bert.safetensors")
    umemma("convert", "--family=bert", "--from=bert.safetensors", "--to=bert", "--field=heads=2")
    assert (folder / "bert" / model_card.PARAMETERS).exists()
