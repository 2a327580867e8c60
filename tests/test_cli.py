"""The real command line: bad input ends in one line on stderr and status 1, and leaves nothing half-written."""

import json
import pathlib
import re
import shutil
import signal
import socket
import sys
import time

import numpy as np
import pytest

from tests import small_run
from tests.processes import INTERRUPTIBLE, ROOT, start
from umemma_jax import cli
from umemma_jax.data.pipeline import TrainOrder
from umemma_jax.data.tfrecord import load_index
from umemma_jax.errors import UserError

RECIPE = """
from tests import small_run
from tests.processes import INTERRUPTIBLE, ROOT, start
from umemma_jax.config import tower_config

def get_config():
    config = small_run.get_config({dataset!r}, unimodal__epochs=1, fusion__epochs=1, evaluation__rates=(0.0, 0.5))
    config.checkpoint_every = 2
    config.modalities = ("image", "vector")
    config.inputs.image = tower_config({{"name": "lenet", "channels": 2, "layers": 0}})
    config.inputs.vector = tower_config({{"name": "tests.own_encoder"}})
    {change}
    return config
"""


def succeeds(*arguments):
    process = start(*arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert errors == ""
    return output


def refusal(*arguments, **options):
    """The one line that main.py ends with, without `error: `."""
    process = start(*arguments, **options)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert re.fullmatch(r"error: .+\n", errors), errors
    return errors.removeprefix("error: ").strip()


def content(workdir):
    """The files in a workdir; a checkpoint, and a folder of event files, count as one."""
    paths = [path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file()]
    return sorted({"/".join(path.parts[: 3 if path.parts[0] == "checkpoints" else 2]) for path in paths})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path)
    return path


@pytest.fixture
def write_recipe(dataset, tmp_path):
    """Writes a config file of a run that takes a few seconds, with one more line of code."""

    def write(change="", path=dataset):
        file = tmp_path / "recipe.py"
        file.write_text(RECIPE.format(dataset=str(path), change=change))
        return f"--config={file}"

    return write


@pytest.fixture
def recipe(write_recipe):
    return write_recipe()


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def finished_run(dataset, tmp_path_factory):
    """The workdir of a run that went well, which is silent on stderr."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.py").write_text(RECIPE.format(dataset=str(dataset), change=""))
    succeeds(f"--config={folder / 'recipe.py'}", f"--workdir={folder / 'run'}")
    return folder / "run"


@pytest.fixture
def finished(finished_run, workdir):
    """A copy of it to do harm to."""
    shutil.copytree(finished_run, workdir)
    return workdir


# Good input.


def test_flags_come_in_any_order_and_form(recipe, tmp_path):
    command = cli.parse(
        [
            "main.py",
            "--config.fusion.epochs",
            "7",
            "--noconfig.missing.augment",
            "--workdir",
            "w",
            recipe,
            "--mode=eval",
        ]
    )
    assert (command.config.fusion.epochs, command.config.missing.augment) == (7, False)
    assert (command.workdir, command.mode) == (pathlib.Path("w"), "eval")


def test_fields_whose_keys_are_the_users_own_are_set_by_flags(recipe):
    command = cli.parse(["main.py", recipe, "--config.class_weights.a=5.0", "--config.inputs.image.encoder.layers=2"])
    assert command.config.class_weights.to_dict() == {"a": 5.0}
    assert command.config.inputs.image.encoder.layers == 2


@pytest.mark.parametrize(("name", "workdir"), [("", "runs/quickstart"), (":ume", "runs/quickstart_ume")])
def test_every_method_has_its_own_default_workdir(name, workdir):
    assert cli.parse(["main.py", f"--config={ROOT}/configs/quickstart.py{name}"]).workdir == pathlib.Path(workdir)


def test_help():
    output = succeeds("--help")
    for flag in ("--config", "--workdir", "--mode", "--seeds"):
        assert flag in output


def test_a_run_and_its_evaluation_are_silent_on_stderr(recipe, finished):
    assert content(finished) == [
        "calibration.json",
        "checkpoints/fusion/4",
        "checkpoints/fusion/5",
        "checkpoints/unimodal/4",
        "checkpoints/unimodal/5",
        "config.json",
        "metrics.jsonl",
        "model/calibration.json",
        "model/ceilings.safetensors",
        "model/checksums.json",
        "model/dataset.json",
        "model/model.json",
        "model/report.json",
        "model/validation.npz",
        "model/weights.safetensors",
        "report/decisions.npz",
        "report/information.png",
        "report/information.svg",
        "report/missing_tables.npz",
        "report/rate_maps.png",
        "report/rate_maps.svg",
        "report/reliability.png",
        "report/reliability.svg",
        "report/report.html",
        "report/report.json",
        "report/report.md",
        "report/robustness.png",
        "report/robustness.svg",
        "tensorboard/fusion",
        "tensorboard/unimodal",
    ]
    succeeds(recipe, f"--workdir={finished}", "--mode=eval")


def test_predictions_are_written_for_a_split_of_any_dataset(recipe, finished, dataset):
    output = succeeds(recipe, f"--workdir={finished}", "--mode=predict")
    assert output == f"Predictions: {finished}/predictions/small_test.csv\n"
    succeeds(recipe, f"--workdir={finished}", "--mode=predict", f"--data={dataset}", "--split=train")
    rows = {path.stem: path.read_text().splitlines() for path in (finished / "predictions").glob("*.csv")}
    assert {name: len(lines) - 1 for name, lines in rows.items()} == {"small_test": 41, "small_train": 96}
    assert rows["small_test"][1].startswith("test0,image+vector,")


# Flags and config files. In processes of their own where an error takes a way of its own to the user.


@pytest.mark.parametrize(
    ("arguments", "culprit", "remedy"),
    [
        ([], "--config is missing", "--config=quickstart"),
        (["{recipe}", "--wrkdir=x"], "unknown flag --wrkdir", "--workdir=DIR"),
        (["{recipe}", "--mode=evl"], "--mode=evl", "train|eval|predict|compare"),
        (["{recipe}", "--split=val"], "--split=val: is for --mode=predict", "this is --mode=train"),
        (["{recipe}", "--format=onnx"], "--format=onnx: is for --mode=export", "this is --mode=train"),
        (["{recipe}", "--config.fusion.epoch=3"], "config.fusion.epoch: unknown field", "epochs"),
        (["{recipe}", "--config.fusion.epochs=abc"], "--config.fusion.epochs=abc", "of type int"),
        (["{recipe}", "--config.modalities=('image','video')"], "config.inputs.video", "missing"),
        (["--config=nowhere.py"], "--config=nowhere.py: cannot be read", "or one of av_mnist, ave"),
        (["--config=configs/quickstart.py:nonsense"], "'nonsense': unknown method", "ume_mma"),
    ],
)
def test_command_line(recipe, workdir, arguments, culprit, remedy):
    line = refusal(*(argument.format(recipe=recipe) for argument in arguments), f"--workdir={workdir}")
    assert culprit in line and remedy in line
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.fusion.epochs=3.5", "--config.fusion.epochs=3.5: .*; the field is of type int"),
        ("--config.fusion.learning_rate=fast", "--config.fusion.learning_rate=fast: .* of type float"),
        ("--config.missing.augment=perhaps", "--config.missing.augment=perhaps: .* of type bool"),
        ("--config.inputs=3", "--config.inputs=3: .* of type ConfigDict"),
        ("--config.nothing.at.all=3", "config.nothing.at.all: unknown field, config has .*unimodal"),
        ("--config.seed.x=3", r"config.seed.x: unknown field, config.seed has no fields"),
        ("--config.inputs.image.mine=3", "config.inputs.image.mine: unknown field, config.inputs.image has .*encoder"),
        ("--config.inputs.mine.encoder.width=3", "config.inputs.mine.encoder: unknown field, config.inputs has "),
        ("--config.seed=-1", "config.seed: -1 must be 0 or more"),
        ("--workdir=gs://bucket/run", "--workdir=gs://bucket/run: is an address, name a folder"),
        ("--seeds=0", "--seeds=0: 0 is not a positive integer"),
        ("extra", "unknown argument 'extra': usage: "),
    ],
)
def test_other_mistakes_on_the_command_line(recipe, argument, message):
    with pytest.raises(UserError, match=message):
        cli.parse(["main.py", recipe, argument])


@pytest.mark.parametrize(
    ("text", "value"), [("0.1", 0.1), ("3", 3), ("False", False), ("(1.0, 2.0)", (1.0, 2.0)), ("bfloat16", "bfloat16")]
)
@pytest.mark.parametrize("field", ["encoder", "preprocess"])
def test_a_field_that_the_recipe_does_not_mention(recipe, field, text, value):
    config = cli.parse(["main.py", recipe, f"--config.inputs.image.{field}.mine={text}"]).config
    assert config.inputs.image[field].mine == value


@pytest.mark.parametrize(
    ("change", "culprit", "remedy"),
    [
        ("config.fusion.epoch = 3", "config.fusion.epoch: unknown field", "epochs"),
        ("config.fusion.epochs = 'abc'", "recipe.py, line 12: TypeError", "mend the line"),
        ("config.inputs.image.encoder.name = 'lenett'", "config.inputs.image.encoder.name", "name a module"),
        ("config.inputs.image.preprocess.sift = 1", "config.inputs.image.preprocess.sift", "shift"),
        ("config.modalities += ('video',); config.inputs.video = config.inputs.image", "'video' is not in", "audio"),
        ("config.data.prep = 'data_prep.none'; config.data.prepare = True; config.data.dir = 'no'", "prep", "prepare"),
    ],
)
def test_config_file(write_recipe, workdir, change, culprit, remedy):
    line = refusal(write_recipe(change), f"--workdir={workdir}")
    assert culprit in line and remedy in line
    assert not workdir.exists()


# Data.


def test_data_folder_absent(workdir, tmp_path):
    folder = tmp_path / "absent"
    line = refusal("--config=configs/av_mnist.py", f"--config.data.dir={folder}", f"--workdir={workdir}")
    assert line.startswith(f"{folder}: the data folder does not exist")
    assert f"python -m umemma_jax.data_prep.av_mnist --mnist=DIR --fsdd=DIR --out={folder}" in line
    assert not workdir.exists()


def test_data_folder_empty(workdir, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    line = refusal("--config=configs/quickstart.py", f"--config.data.dir={folder}", f"--workdir={workdir}")
    assert line.startswith(f"{folder}: the data folder is empty")
    assert f"python -m umemma_jax.data_prep.quickstart --out={folder}" in line
    assert not workdir.exists()


def test_dataset_of_another_format_version(write_recipe, dataset, workdir, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    file = tmp_path / "data" / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 99}))
    line = refusal(write_recipe(path=file.parent), f"--workdir={workdir}")
    assert line.startswith(f"{file}: format_version 99 instead of 2: make the dataset again")
    assert not workdir.exists()


def test_corrupted_record_in_the_middle_of_training(write_recipe, dataset, workdir, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    (shard,) = (tmp_path / "data").glob("train*.tfrecord")
    record = int(TrainOrder(np.arange(96), 16, seed=0)[4][7])  # read for the fifth step
    flip_byte(shard, load_index(shard)[record] + 100)
    # Without a cache and with a validation split of its own, the training split is not read before training.
    change = "config.data.validation_split, config.data.cache_megabytes = 'test', 0"
    recipe = write_recipe(change, path=tmp_path / "data")
    line = refusal(recipe, f"--workdir={workdir}")
    assert line.startswith(f"{shard}: record {record} is corrupted (checksum mismatch)") and "prepare" in line
    assert content(workdir) == [
        "checkpoints/unimodal/2",
        "checkpoints/unimodal/4",
        "config.json",
        "metrics.jsonl",
        "tensorboard/unimodal",
    ]
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in records if "event" not in record] == [1, 2, 3, 4]


def flip_byte(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


# Devices and batches.


def test_no_device(recipe, workdir):
    line = refusal(recipe, f"--workdir={workdir}", environment={"JAX_PLATFORMS": "abacus"})
    assert line.startswith("JAX finds no device: ") and "'abacus'" in line and "JAX_PLATFORMS=''" in line
    assert not workdir.exists()


@pytest.mark.parametrize("size", [2, 18])
def test_batch_does_not_divide_over_the_devices(recipe, workdir, size):
    four_devices = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    arguments = (recipe, f"--config.data.batch_size={size}", f"--workdir={workdir}")
    line = refusal(*arguments, environment=four_devices)
    assert f"config.data.batch_size = {size}" in line and "4 devices" in line and "multiple of 4" in line
    assert not workdir.exists()


def test_batch_larger_than_the_training_split(recipe, workdir):
    line = refusal(recipe, "--config.data.batch_size=512", f"--workdir={workdir}")
    assert "config.data.batch_size = 512" in line and "only 86 training examples" in line and "86 or less" in line
    assert not workdir.exists()


# The workdir.


def test_workdir_of_another_config(recipe, finished):
    before = content(finished)
    line = refusal(recipe, "--config.unimodal.learning_rate=0.1", f"--workdir={finished}")
    assert "unimodal.learning_rate: 0.005 -> 0.1" in line and "use another --workdir" in line
    assert content(finished) == before


def test_damaged_config_json(recipe, finished):
    file = finished / "config.json"
    file.write_text(file.read_text()[:100])
    line = refusal(recipe, f"--workdir={finished}")
    assert line.startswith(f"{file} is damaged") and "remove it" in line


def test_workdir_below_a_file(recipe, tmp_path):
    (tmp_path / "file").write_text("kept")
    line = refusal(recipe, f"--workdir={tmp_path / 'file' / 'run'}")
    assert f"--workdir={tmp_path / 'file' / 'run'} cannot be written" in line and "choose another" in line
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's right to write everywhere by prctl")
def test_workdir_read_only(recipe, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    drop_right = "import ctypes; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)"  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    line = refusal(recipe, f"--workdir={tmp_path / 'locked' / 'run'}", prelude=drop_right)
    assert "cannot be written (Permission denied)" in line and "choose another" in line


def test_a_second_process_on_a_workdir_is_refused_and_an_evaluation_of_it_disturbs_nothing(recipe, workdir):
    arguments = (recipe, f"--workdir={workdir}", "--config.unimodal.epochs=0", "--config.fusion.epochs=2000")
    first = start(*arguments)
    while not (workdir / "metrics.jsonl").exists() and first.poll() is None:
        time.sleep(0.01)
    line = refusal(*arguments)
    assert line.startswith(f"--workdir={workdir} is in use by process {first.pid} on {socket.gethostname()} since 20")
    assert "of 10000, run the same command with --mode=train" in refusal(*arguments, "--mode=eval")
    first.send_signal(signal.SIGTERM)
    output, errors = first.communicate()
    assert (first.returncode, errors) == (0, "")
    assert "the same command continues" in output
    assert not (workdir / ".lock").exists()


def test_evaluation_of_nothing(recipe, workdir):
    line = refusal(recipe, f"--workdir={workdir}", "--mode=eval")
    assert line.startswith(f"{workdir}: nothing was trained here") and "--mode=train" in line
    assert not workdir.exists()


def test_evaluation_of_an_unfinished_run_touches_nothing(recipe, finished):
    shutil.rmtree(finished / "checkpoints" / "fusion" / "5")
    before = content(finished)
    line = refusal(recipe, f"--workdir={finished}", "--mode=eval")
    assert line.startswith(f"{finished}: stage fusion stands at step 4 of 5") and "--mode=train" in line
    assert content(finished) == before


@pytest.mark.parametrize("file", ["state/_METADATA", "state/manifest.ocdbt"])
def test_damaged_checkpoint(recipe, finished, file):
    checkpoint = finished / "checkpoints" / "fusion" / "5"
    truncate(checkpoint / file)
    line = refusal(recipe, f"--workdir={finished}")
    assert line.startswith(f"{checkpoint}: this checkpoint cannot be restored")
    assert "remove its folder" in line and "continues from step 4" in line
    if file == "state/_METADATA":
        shutil.rmtree(checkpoint)
        assert "fusion 5/5" in succeeds(recipe, f"--workdir={finished}")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# A full disk: no file can grow beyond a size.


def file_limit(size):
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    ignore = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"  # an error instead of the end of the process
    # JAX would warn that it cannot write to its cache of compiled programs.
    no_cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000000"}
    return {"prelude": f"{ignore}; {limit}", "environment": no_cache}


def test_disk_full_at_the_start(recipe, workdir):
    line = refusal(recipe, f"--workdir={workdir}", **file_limit(1000))
    assert f"--workdir={workdir} cannot be written (File too large)" in line and "make room" in line
    assert content(workdir) == []


def test_disk_full_at_a_checkpoint(recipe, workdir):
    line = refusal(recipe, f"--workdir={workdir}", **file_limit(6000))
    assert line.startswith(f"{workdir}/checkpoints/unimodal: a checkpoint cannot be written (File too large)")
    assert "make room" in line and "continues from the start of the stage" in line
    assert content(workdir) == ["config.json", "metrics.jsonl", "tensorboard/unimodal"]
    assert "Report" in succeeds(recipe, f"--workdir={workdir}")


def test_disk_full_at_the_metrics(recipe, workdir):
    arguments = (recipe, "--config.unimodal.epochs=20", f"--workdir={workdir}", "--config.checkpoint_every=1000")
    line = refusal(*arguments, **file_limit(6000))
    assert line.startswith(f"cannot write to {workdir}") and "File too large" in line and "free space" in line
    assert content(workdir) == ["config.json", "metrics.jsonl", "tensorboard/unimodal"]


# Training that goes wrong or is interrupted.


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(recipe, workdir):
    changes = {"optimizer": "sgd", "learning_rate": 1e30, "clip": 1e38, "warmup": 1.0}
    arguments = [recipe, f"--workdir={workdir}", "--config.unimodal.epochs=0", "--config.checkpoint_every=1"]
    arguments += [f"--config.fusion.{field}={value}" for field, value in changes.items()]
    line = refusal(*arguments)
    # The first step has a learning rate of 0; the second one's loss is still finite, what it makes of the parameters
    # is not.
    assert line.startswith("stage fusion, step 2: norm of the parameters is inf")
    assert "last good checkpoint" in line and "lower config.fusion.learning_rate" in line
    assert content(workdir) == ["checkpoints/fusion/1", "config.json", "metrics.jsonl", "tensorboard/fusion"]
    assert refusal(*arguments) == line


def test_ctrl_c_in_training_saves_and_exits_130(recipe, workdir):
    arguments = (recipe, f"--workdir={workdir}", "--config.unimodal.epochs=0", "--config.fusion.epochs=2000")
    process = start(*arguments, prelude=INTERRUPTIBLE)
    while not (workdir / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130
    assert errors == ""
    saved = re.search(r"stage fusion: saved at step (\d+) of 10000; the same command continues\n$", output)
    assert f"checkpoints/fusion/{saved[1]}" in content(workdir)
    assert not [path for path in content(workdir) if "tmp" in path or "partial" in path]


def test_ctrl_c_before_training_exits_130(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text("import time\nprint('reading', flush=True)\ntime.sleep(600)\n")
    process = start(f"--config={file}", prelude=INTERRUPTIBLE)
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")
