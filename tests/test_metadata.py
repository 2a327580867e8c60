"""What the package says of itself: the version in one place, a citation and extras that are complete."""

import configparser
import re

import yaml

import umemma_jax
from tests.processes import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_the_version_is_the_same_everywhere():
    assert SETUP["metadata"]["version"] == "attr: umemma_jax.__version__"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == umemma_jax.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == umemma_jax.__version__


def test_every_extra_that_a_message_names_exists():
    sources = [path.read_text() for path in (ROOT / "umemma_jax").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"umemma_jax\[(\w+)\]", text)}
    named |= {name for text in sources for name in re.findall(r"""extras\.needed\("(\w+)",""", text)}
    assert named - {"extra"} <= set(SETUP["options.extras_require"])
    assert {"clips", "dask", "serve", "tensorboard", "torch", "cloud"} <= named
