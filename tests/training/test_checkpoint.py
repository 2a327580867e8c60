"""Checkpoints: state and position as one thing, nothing half-written, and what a disk or a user does to them."""

import gc
import logging
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.faults.trial import flipped
from umemma_jax import checksums
from umemma_jax.errors import UserError
from umemma_jax.training.checkpoint import Checkpoints


def make_state(seed):
    """A replicated state of arrays of several dtypes."""
    rng = np.random.default_rng(seed)
    state = {
        "step": np.int32(seed),
        "params": {"kernel": rng.normal(size=(300, 40)).astype(np.float32), "bias": rng.normal(size=3)},
        "slots": [rng.normal(size=(5,)).astype(np.float32), np.uint8([1, 2, 3])],
    }
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return jax.device_put(jax.tree.map(jnp.asarray, state), NamedSharding(mesh, PartitionSpec()))


def make_batches():
    return iter(grain.MapDataset.range(1000).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def save(workdir, steps, keep=2, stage="fusion", run=""):
    """Checkpoints of a stage at some steps; each step takes one batch."""
    batches = make_batches()
    with Checkpoints(workdir, stage, keep, run) as checkpoints:
        for step in range(1, max(steps) + 1):
            next(batches)
            if step in steps:
                checkpoints.save(step, make_state(step), batches)
    return workdir / "checkpoints" / stage


def restored(workdir, step, run=""):
    """The state at a step, and the number of the batch that comes next."""
    batches = make_batches()
    with Checkpoints(workdir, "fusion", run=run) as checkpoints:
        return checkpoints.restore(step, make_state(0), batches), next(batches)


def refusal(workdir, step, **options):
    """The one line that says why there is none."""
    with pytest.raises(UserError) as error:
        restored(workdir, step, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_equal(state, expected):
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_state_and_position_come_back_and_the_newest_are_kept(tmp_path):
    folder = save(tmp_path, [2, 5, 7])
    assert sorted(path.name for path in folder.iterdir()) == ["5", "7"]
    with Checkpoints(tmp_path, "fusion", 2) as checkpoints:
        assert checkpoints.latest() == 7
        for step in (7, 5):
            batches = make_batches()
            state = checkpoints.restore(step, make_state(0), batches)
            assert_equal(state, make_state(step))
            assert next(batches) == step
            like = make_state(0)["params"]["kernel"]
            assert state["params"]["kernel"].sharding == like.sharding


def test_saving_a_step_twice_changes_nothing(tmp_path):
    folder = save(tmp_path, [3])
    with Checkpoints(tmp_path, "fusion", 2) as checkpoints:
        checkpoints.save(3, make_state(99), make_batches())
        assert_equal(checkpoints.restore(3, make_state(0)), make_state(3))
    assert [path.name for path in folder.iterdir()] == ["3"]


def test_reading_touches_nothing(tmp_path):
    with Checkpoints(tmp_path, "fusion") as checkpoints:
        assert checkpoints.latest() is None
    assert list(tmp_path.iterdir()) == []
    folder = save(tmp_path, [3])
    half_written = folder / "4.orbax-checkpoint-tmp"
    half_written.mkdir()
    with Checkpoints(tmp_path, "fusion") as checkpoints:
        assert checkpoints.latest() == 3
        assert_equal(checkpoints.restore(3, make_state(0)), make_state(3))
    assert half_written.exists()  # it may be that of a training under way


def test_half_written_checkpoint_is_never_seen_and_is_removed_on_resuming(tmp_path):
    folder = save(tmp_path, [3])
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, "fusion", 2) as checkpoints:
        assert checkpoints.latest() == 3
    assert [path.name for path in folder.iterdir()] == ["3"]


def test_every_truncated_file_is_harmless_or_said_in_one_line(tmp_path):
    folder = save(tmp_path / "whole", [3, 5])
    refused = 0
    for file in sorted(path.relative_to(folder) for path in (folder / "5").rglob("*") if path.is_file()):
        workdir = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", workdir)
        damaged = workdir / "checkpoints" / "fusion"
        (damaged / file).write_bytes((folder / file).read_bytes()[: (folder / file).stat().st_size // 2])
        batches = make_batches()
        with Checkpoints(workdir, "fusion", 2) as checkpoints:
            try:
                state = checkpoints.restore(5, make_state(0), batches)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
                assert str(error).startswith(f"{damaged}/5: this checkpoint cannot be restored (")
                assert str(error).endswith("remove its folder, and the command with --mode=train continues from step 3")
            else:
                assert_equal(state, make_state(5))
                assert next(batches) == 5
        shutil.rmtree(workdir)
    assert refused >= 4  # position, metadata, manifest and data at least


def test_flipped_bits_change_nothing_or_are_named_with_their_file(tmp_path):
    folder = save(tmp_path, [3, 5])
    rng = np.random.default_rng(0)
    for file in sorted(path for path in (folder / "5").rglob("*") if path.is_file()):
        for _ in range(3):
            with flipped(file, rng):
                try:
                    state, following = restored(tmp_path, 5)
                except UserError as error:
                    name = file.relative_to(folder / "5")
                    assert str(error).startswith(f"{folder}/5: this checkpoint cannot be restored ({name}: ")
                    assert str(error).endswith("--mode=train continues from step 3")
                else:
                    assert_equal(state, make_state(5))
                    assert following == 5
                    assert file.parent == folder / "5"  # Orbax's time stamps; what lies deeper is all refused


def test_only_a_whole_checkpoint_is_offered_in_place_of_a_damaged_one(tmp_path):
    folder = save(tmp_path, [2, 3, 4, 5], keep=4)
    for step in (5, 4):
        (folder / str(step) / "batches" / "metadata").unlink()
    (folder / "3" / "checksums.json").unlink()  # as by a removal that was killed
    (folder / "3" / "_CHECKPOINT_METADATA").unlink()
    assert refusal(tmp_path, 5) == (
        f"{folder}/5: this checkpoint cannot be restored (batches/metadata: No such file or directory): remove its "
        "folder (and 4, 3 beside it, no better), and the command with --mode=train continues from step 2"
    )


def test_a_renamed_or_copied_checkpoint_is_told_by_what_it_holds(tmp_path):
    folder = save(tmp_path, [3, 5], run="a")
    (folder / "5").rename(folder / "18")
    assert refusal(tmp_path, 18, run="a") == (
        f"{folder}/18: this checkpoint cannot be restored (it is that of stage fusion, step 5): remove its folder, "
        "and the command with --mode=train continues from step 3"
    )
    shutil.copytree(save(tmp_path / "b", [5], run="b") / "5", folder / "5")
    assert "(it is that of stage fusion, step 5, of another run)" in refusal(tmp_path, 5, run="a")
    shutil.rmtree(folder / "5")
    shutil.copytree(save(tmp_path / "c", [5], run="a", stage="unimodal") / "5", folder / "5")
    assert "(it is that of stage unimodal, step 5)" in refusal(tmp_path, 5, run="a")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_failure_of_orbax_is_told_once(tmp_path, caplog):
    folder = save(tmp_path, [3])
    (folder / "3" / "checksums.json").unlink()
    data = next(path for path in (folder / "3" / "state").rglob("d/*"))
    data.write_bytes(data.read_bytes()[:-20])
    assert "this checkpoint cannot be restored (ValueError: " in refusal(tmp_path, 3)
    gc.collect()  # what was left unfinished would complain now
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_what_was_compared_with_its_checksums_once_is_so_again(tmp_path):
    folder = save(tmp_path, [3, 5])
    with Checkpoints(tmp_path, "fusion") as checkpoints:
        assert_equal(checkpoints.restore(5, make_state(0)), make_state(5))
        with (
            flipped(folder / "5" / "state" / "manifest.ocdbt", np.random.default_rng(0)),
            pytest.raises(UserError, match=r"manifest.ocdbt: does not match its checksum.*from step 3"),
        ):
            checkpoints.restore(5, make_state(0))
        assert_equal(checkpoints.restore(5, make_state(0)), make_state(5))


def test_checkpoints_from_before_there_were_checksums_are_restored(tmp_path):
    folder = save(tmp_path, [3])
    (folder / "3" / "checksums.json").unlink()
    assert_equal(restored(tmp_path, 3)[0], make_state(3))


def test_what_is_no_checkpoint_is_passed_over_or_named(tmp_path):
    folder = save(tmp_path, [3, 5])
    (folder / "21").write_text("a file")
    (folder / "5.bak").mkdir()
    (folder / "notes").mkdir()
    with Checkpoints(tmp_path, "fusion", 2) as checkpoints:
        assert checkpoints.latest() == 5
        assert_equal(checkpoints.restore(5, make_state(0)), make_state(5))
    (folder / "22").mkdir()
    with Checkpoints(tmp_path, "fusion", 2) as checkpoints:
        assert checkpoints.latest() == 22
    assert "/22: this checkpoint cannot be restored (checksums.json: missing)" in refusal(tmp_path, 22)


def test_state_of_another_structure(tmp_path):
    folder = save(tmp_path, [3])
    other = make_state(0)
    other["params"]["kernel"] = jnp.zeros((4, 4))
    with (
        Checkpoints(tmp_path, "fusion") as checkpoints,
        pytest.raises(UserError, match=rf"{folder}/3: .*shape.*continues from the start of the stage"),
    ):
        checkpoints.restore(3, other)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match=r"checkpoints/fusion: a checkpoint cannot be written \(Not a directory\)"):
        Checkpoints(tmp_path, "fusion", 2)


def test_failed_save_leaves_nothing_and_is_said_once(tmp_path):
    folder = save(tmp_path, [3])
    with pytest.raises(UserError) as error, Checkpoints(tmp_path, "fusion", 2) as checkpoints:
        checkpoints.save(4, make_state(4), FailingBatches())
        checkpoints.wait()
    assert str(error.value).startswith(f"{folder}: a checkpoint cannot be written (No space left on device): make room")
    assert str(error.value).endswith("the same command continues from step 3")
    assert [path.name for path in folder.iterdir()] == ["3"]


def test_failed_checksums_leave_nothing(tmp_path, monkeypatch):
    folder = save(tmp_path, [3])

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checksums, "write_folder", full)
    with (
        pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*continues from step 3"),
        Checkpoints(tmp_path, "fusion", 1) as checkpoints,
    ):
        checkpoints.save(4, make_state(4), make_batches())
        checkpoints.wait()
    assert [path.name for path in folder.iterdir()] == ["3"]


class FailingBatches(grain.DatasetIterator):
    """An iterator whose position meets a full disk. (In test_cli.py a file system limit makes Orbax itself fail.)"""

    def __init__(self):
        super().__init__()

    def __next__(self):
        raise NotImplementedError

    def get_state(self):
        raise OSError(28, "No space left on device")

    def set_state(self, state):
        raise NotImplementedError
