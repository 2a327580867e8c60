"""What killed processes leave beside a place is removed by the next one; what a live one is at is left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.conftest import make_examples, write_dataset
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data.unfinished import UnfinishedFolder, clear_up

WRITE = """
import sys
from pathlib import Path
from tests.data.conftest import make_examples, MODALITIES
from umemma_jax.data.dataset import DatasetWriter
with DatasetWriter(sys.argv[1], name="n", description="", classes=["0", "1", "2"], modalities=MODALITIES) as writer:
    writer.write("train", **make_examples(1)[0])
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writing(tmp_path: Path):
    """A process that is writing the dataset `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, tmp_path / "out"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"writing\n"
    yield process
    process.kill()
    process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_a_killed_preparation_left_is_removed_by_the_next_one(tmp_path: Path, writing):
    writing.send_signal(signal.SIGKILL)
    writing.wait()
    (left,) = names(tmp_path)
    assert left.startswith("out.partial-")
    write_dataset(tmp_path / "other", train=make_examples(3))
    assert left in names(tmp_path)
    write_dataset(tmp_path / "out", train=make_examples(3))
    assert names(tmp_path) == ["other", "out"]


def test_what_a_live_one_is_at_is_left_alone(tmp_path: Path, writing):
    before = names(tmp_path)
    write_dataset(tmp_path / "out", train=make_examples(3))
    assert names(tmp_path) == sorted([*before, "out"])


def test_others_files_are_left_alone(tmp_path: Path):
    for name in ("out.partial-0a1b2c3d", "out.partial-other", "other.partial-0a1b2c3d"):
        (tmp_path / name).mkdir()
    (tmp_path / "out.partial-00000000").touch()
    clear_up(tmp_path / "out")
    assert names(tmp_path) == ["other.partial-0a1b2c3d", "out.partial-00000000", "out.partial-other"]


def test_a_dataset_that_was_being_replaced_comes_back(tmp_path: Path):
    write_dataset(tmp_path / "out", train=make_examples(3))
    (tmp_path / "out").rename(tmp_path / "out.replaced-0a1b2c3d")
    clear_up(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert len(open_dataset(tmp_path / "out").source("train")) == 3
    (tmp_path / "out.replaced-0a1b2c3d").mkdir()
    clear_up(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_the_lock_ends_with_the_folder(tmp_path: Path):
    with UnfinishedFolder(tmp_path / "out") as folder:
        clear_up(tmp_path / "out")
        assert folder.is_dir()
    assert names(tmp_path) == []
    folder.mkdir()
    clear_up(tmp_path / "out")
    assert names(tmp_path) == []
