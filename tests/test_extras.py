"""Packages of an extra that are not installed: what does without them works, the rest names the extra in one line."""

import os
import subprocess
import sys

import pytest

from tests.data_prep.raw_files import wav_bytes
from tests.processes import ROOT
from umemma_jax import extras
from umemma_jax.errors import UserError

ABSENT = "raise ModuleNotFoundError('No module named ' + repr(__name__), name=__name__)\n"


@pytest.fixture
def without(tmp_path):
    """Runs a module in a process that lacks a package, as do those that it starts."""

    def run(package, module, *arguments):
        (tmp_path / "absent").mkdir(exist_ok=True)
        (tmp_path / "absent" / f"{package}.py").write_text(ABSENT)
        paths = os.pathsep.join([str(tmp_path / "absent"), str(ROOT)])
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
        )

    return run


def write_table(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "sounds.csv").write_text("\n".join(["file", *files]) + "\n")
    return f"--table={folder / 'sounds.csv'}"


def test_plain_sound_needs_no_pyav(without, tmp_path):
    sound = wav_bytes(bytes(1600), 16000)
    table = write_table(tmp_path, {"a.wav": sound, "b.wav": sound})
    done = without("av", "umemma_jax.data_prep.table", table, "--audio=file", f"--out={tmp_path / 'data'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "dataset.json").exists()


def test_other_sound_names_the_extra(without, tmp_path):
    table = write_table(tmp_path, {"a.mp3": b"ID3" + bytes(500), "b.mp3": b"ID3" + bytes(500)})
    done = without("av", "umemma_jax.data_prep.table", table, "--audio=file", f"--out={tmp_path / 'data'}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("needs av, which is not installed: pip install 'umemma_jax[clips]'")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()

    (tmp_path / "absent" / "av.py").unlink()  # with it all is tried again
    done = without("no_package", "umemma_jax.data_prep.table", table, "--audio=file", f"--out={tmp_path / 'data'}")
    assert "2 of 2 files are unreadable" in done.stderr


def test_a_module_that_is_for_nothing_else_says_so_as_it_is_loaded(without):
    done = without("av", "umemma_jax.data_prep.rendered_clips", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("error: writing video: needs av, which is not installed: pip install 'umemma_jax[clips]'\n")


def test_tensorboard_is_the_tracker_where_it_is_installed(monkeypatch):
    from umemma_jax.config import default_config

    assert default_config().trackers == ("tensorboard",)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert default_config().trackers == ()


def test_tensorboard_that_is_asked_for_names_the_extra(monkeypatch, tmp_path):
    from umemma_jax.training import trackers

    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"^config\.trackers: needs .*pip install 'umemma_jax\[tensorboard\]'$"):
        trackers.open_trackers(["tensorboard"], tmp_path, "unimodal", [])


def test_an_import_of_ours_that_fails_is_no_missing_package():
    with pytest.raises(ModuleNotFoundError), extras.needed("clips", "a test"):
        import umemma_jax.no_such_module  # noqa: F401


LOADED_LATE = {
    "av",
    "bokeh",
    "fastapi",
    "huggingface_hub",
    "matplotlib",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "tensorboard",
    "tensorflow_datasets",
    "torch",
    "transformers",
}


def test_heavy_packages_are_loaded_when_they_are_needed():
    code = (
        "import sys, umemma_jax.cli, umemma_jax.config, umemma_jax.experiment, umemma_jax.predict; "
        "import umemma_jax.training.train; "
        f"print(sorted({LOADED_LATE!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
