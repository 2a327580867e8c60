"""What stands on the pages of the site: commands are such as there are, and code runs."""

import argparse
import csv
import json
import pathlib
import re
import runpy
import sys
from configparser import ConfigParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests import own_family, pages, test_predictor
from umemma_jax import cli, command, umemma
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import table
from umemma_jax.methods import METHODS

pytestmark = pytest.mark.usefixtures("one_device")

PLACEHOLDERS = {"RECIPE": "quickstart", "HOST:PORT": "host0:9876", "=N": "=4", "=I": "=0", "=$i": "=0"}
COMMANDS = sorted({command for text in pages.PAGES.values() for command in pages.commands(text)})
FILES = r"`((?:umemma_jax|configs|data_prep|benchmarks|tests)/[\w/]*(?:\.\w+)?)`"
WITH_CODE = [name for name, text in pages.PAGES.items() if pages.blocks(text, "python")]
NOTEBOOKS = sorted(pages.DOCS.glob("notebooks/*.ipynb"))


def write_table(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def things(count):
    """As the pages have them: rows with a category, two numbers, a title and a photo, and gaps."""
    named = {"kind": "category", "price": "length", "weight": "weight", "title": "title"}
    rows = [{named[name]: value for name, value in row.items()} for row in test_predictor.rows(count, 0)]
    return [row | {"photo": f"{number}.png" if number % 3 else ""} for number, row in enumerate(rows)]


def write_files(path):
    """The tables that the pages name, and their photos."""
    write_table(path / "train.csv", test_predictor.rows(150, 150))
    write_table(path / "test.csv", test_predictor.rows(30, 30))
    write_table(path / "DATA.csv", things(60))
    write_table(path / "NEW.csv", [{name: x for name, x in row.items() if name != "category"} for row in things(9)])
    for number in range(60):
        Image.new("RGB", (8, 8), (4 * number, 0, 0)).save(path / f"{number}.png")
    (path / "configs").symlink_to(pages.ROOT / "configs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where README's three lines have run, and datasets are prepared."""
    path = tmp_path_factory.mktemp("pages")
    write_files(path)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(path)
        exec(pages.blocks(pages.PAGES["README.md"], "python")[0], names := {})
        assert names["answer"].prediction == "shoe"
        table.prepare("DATA", table="DATA.csv", label="category")
        table.prepare("FOLDS", table="DATA.csv", label="category", folds=5)
        (path / "runs" / "quickstart").symlink_to("mine")
        yield path


def by_main(line):
    """What main.py's parser gets of a command: arguments, and the mode that its name says; None of other commands."""
    program, name, *arguments = line.split()
    if (program, name) == ("umemma", "quickstart"):
        return ["--config=quickstart", *arguments], "train"
    if program == "umemma" and name in cli.MODES:
        return arguments, name
    return (arguments, "train") if name == "main.py" else None


def module_of(line):
    """The module that a command runs, and its arguments."""
    match line.split():
        case ["python", "-m", module, *arguments]:
            return module, arguments
        case ["umemma", "prep", name, *arguments]:
            return f"umemma_jax.data_prep.{name}", arguments
        case ["umemma", name, *arguments]:
            return umemma.MODULES[name], arguments


OF_MODULES = [line for line in COMMANDS if by_main(line) is None and "NAME" not in line.split()[2]]


@pytest.fixture
def run(monkeypatch):
    """Runs the module of a command in this process; returns its exit status."""

    def run(line):
        statuses = []
        module, arguments = module_of(line)
        monkeypatch.setattr(command, "run", lambda action: statuses.append(command.status(action)))
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        runpy.run_module(module, run_name="__main__")
        return statuses.pop()

    return run


class Understood(Exception):
    """A command line has been parsed."""


@pytest.mark.parametrize("line", [line for line in COMMANDS if (found := by_main(line)) and found[0]])
def test_a_command_that_trains_or_reports_is_understood(line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for placeholder, value in PLACEHOLDERS.items():
        line = line.replace(placeholder, value)
    arguments, mode = by_main(line)
    assert cli.parse(["umemma", *arguments], mode).mode in cli.MODES


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("line", OF_MODULES)
def test_a_command_of_a_module_is_understood(line, run, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(*args, **kwargs):
        parse(*args, **kwargs)
        raise Understood

    monkeypatch.chdir(pages.ROOT)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(Understood):
        run(line)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("line", [line for line in OF_MODULES if module_of(line)[0].endswith("data_prep.table")])
def test_a_table_is_prepared_as_it_says(line, run, tmp_path, monkeypatch):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(line) == 0
    prepared = list(tmp_path.rglob("dataset.json"))
    assert len(prepared) == (5 if "--folds" in line else 1)
    assert all(len(open_dataset(path.parent).info.modalities) >= 2 for path in prepared)


@pytest.mark.parametrize("page", [name for name in WITH_CODE if name != "README.md"])
def test_code_runs(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    for code in pages.blocks(pages.PAGES[page], "python"):
        if "import torch" in code:
            pytest.importorskip("torch")
        exec(code, names)


def test_the_dataset_lacks_what_was_left_out(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (code,) = pages.blocks(pages.PAGES["docs/own_data.md"], "python")
    exec(code.replace('"pairs"', '"pairs_again"'), {})
    source = open_dataset("pairs_again").source("train")
    np.testing.assert_array_equal(source.present(("image", "audio")), [[True, True], [False, True]])
    np.testing.assert_array_equal(source.labels(), [0, 1])


def test_the_encoder_keeps_the_contract():
    _, code, _ = pages.blocks(pages.PAGES["docs/encoders.md"], "python")
    exec(code, names := {})
    model, x = names["Model"](width=5), jnp.ones((3, 4, 4, 1))
    variables = model.init(jax.random.key(0), x)
    assert model.apply(variables, x, mask=jnp.ones(3, bool), train=True).shape == (3, 5)


def test_the_family_is_the_one_that_the_tests_convert():
    *_, family = pages.blocks(pages.PAGES["docs/encoders.md"], "python")
    _, code = family.split("\n", 1)
    assert pathlib.Path(own_family.__file__).read_text().endswith(code)
    assert len(code.splitlines()) <= 30


def test_extras_are_those_of_the_package():
    config = ConfigParser()
    config.read(pages.ROOT / "setup.cfg")
    extras = set(config["options.extras_require"])
    rows = re.findall(r"^\| (`[^|]*) \|", pages.prose(pages.PAGES["docs/index.md"]).partition("## The first")[0], re.M)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == extras
    named = {name for text in pages.PAGES.values() for name in re.findall(r"'(?:\.|umemma_jax)\[([\w,-]+)\]'", text)}
    assert {name for group in named for name in group.split(",")} <= extras


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_block_says_what_it_is_in(page):
    fences = re.findall(r"^ *```(.*)$", pages.PAGES[page], flags=re.MULTILINE)
    assert all(fences[::2]) and not any(fences[1::2])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described(name):
    assert any(f"`{name}`" in text and METHODS[name].LABEL in text for text in pages.PAGES.values())


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (pages.ROOT / "configs").glob("[a-z]*.py")))
def test_a_recipe_is_described(recipe):
    assert re.search(rf"`{recipe}`", pages.PAGES["docs/recipes.md"])


@pytest.mark.parametrize("path", sorted({p for text in pages.PAGES.values() for p in re.findall(FILES, text)}))
def test_a_file_that_is_named_is_there(path):
    assert (pages.ROOT / path).exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_its_outputs_and_no_folder_of_whoever_ran_it(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) - 2
    assert not re.search(r"/(home|root|tmp|work|Users|usr)/|Traceback", path.read_text())
