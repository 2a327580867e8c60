"""What trackers are told: Weights & Biases and MLflow by stand-ins for them, and by themselves where installed."""

import importlib
import types

import pytest

from umemma_jax.config import TRACKERS as NAMES
from umemma_jax.errors import UserError
from umemma_jax.training.progress import Progress
from umemma_jax.training.trackers import TRACKERS


class Wandb(types.ModuleType):
    """What is called of `wandb`, and by what."""

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.summary, self.id = [], {}, "run7"

    def init(self, **options):
        self.calls.append(("init", options["id"], options["resume"]))
        return self

    def define_metric(self, name, **options):
        self.calls.append(("define_metric", name, options.get("step_metric")))

    def log(self, values):
        self.calls.append(("log", {name: value for name, value in values.items() if name != "time"}))

    def finish(self):
        self.calls.append(("finish",))


class MLflow(types.ModuleType):
    """What is called of `mlflow`, and by what."""

    def __init__(self):
        super().__init__("mlflow")
        self.calls = []

    def active_run(self):
        return None

    def start_run(self, run_id, run_name, nested):
        self.calls.append(("start_run", run_id, run_name, nested))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="run7"))

    def log_metrics(self, values, step, timestamp):
        self.calls.append(("log_metrics", values, step))

    def set_tag(self, name, text):
        self.calls.append(("set_tag", name, text))

    def end_run(self):
        self.calls.append(("end_run",))


def train(workdir, stage, *trackers):
    """A note, a step and a validation."""
    with Progress(workdir, stage, 6, trackers=trackers) as progress:
        progress.note("it is so")
        progress.log(1, {"loss": 0.5, "norm": float("nan")})
        progress.event("validation", 3, {"accuracy/image+audio": 0.9})


def test_the_config_names_those_that_there_are():
    assert tuple(TRACKERS) == NAMES


def test_weights_and_biases_gets_every_stage_in_one_run(tmp_path, monkeypatch):
    wandb = Wandb()
    monkeypatch.setitem(importlib.sys.modules, "wandb", wandb)
    train(tmp_path, "unimodal", "wandb")
    assert wandb.calls == [
        ("init", None, "allow"),
        ("define_metric", "unimodal/step", None),
        ("define_metric", "unimodal/*", "unimodal/step"),
        ("log", {"unimodal/loss": 0.5, "unimodal/step": 1}),
        ("log", {"unimodal/validation/accuracy/image+audio": 0.9, "unimodal/step": 3}),
        ("finish",),
    ]
    assert wandb.summary == {"unimodal/note": "it is so"}
    wandb.calls.clear()
    train(tmp_path, "fusion", "wandb")
    assert wandb.calls[0] == ("init", "run7", "allow")


def test_mlflow_gets_every_stage_in_one_run(tmp_path, monkeypatch):
    mlflow = MLflow()
    monkeypatch.setitem(importlib.sys.modules, "mlflow", mlflow)
    train(tmp_path / "mine", "unimodal", "mlflow")
    assert mlflow.calls == [
        ("start_run", None, "mine", False),
        ("set_tag", "unimodal/note", "it is so"),
        ("log_metrics", {"unimodal/loss": 0.5}, 1),
        ("log_metrics", {"unimodal/validation/accuracy/image audio": 0.9}, 3),
        ("end_run",),
    ]
    mlflow.calls.clear()
    train(tmp_path / "mine", "fusion", "mlflow")
    assert mlflow.calls[0] == ("start_run", "run7", "mine", False)


def test_without_any_the_record_is_written_all_the_same(tmp_path):
    train(tmp_path, "fusion")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, name):
    monkeypatch.setitem(importlib.sys.modules, name, None)
    with pytest.raises(
        UserError, match=rf"trackers: needs {name}, which is not installed: pip install 'umemma_jax\[{name}\]'"
    ):
        train(tmp_path, "fusion", name)


def test_one_that_cannot_be_started(tmp_path, monkeypatch):
    def refuse(**options):
        raise RuntimeError("no key\nlog in first")

    monkeypatch.setitem(importlib.sys.modules, "wandb", types.SimpleNamespace(init=refuse))
    with pytest.raises(UserError, match=r"trackers: wandb cannot be started \(no key log in first\): set it up"):
        train(tmp_path, "fusion", "wandb")


def test_real_mlflow_goes_on_with_its_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    train(tmp_path / "mine", "unimodal", "mlflow")
    train(tmp_path / "mine", "fusion", "mlflow")
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.info.status == "FINISHED" and run.info.run_name == "mine"
    assert run.data.metrics == {
        f"{stage}/{name}": value
        for stage in ("unimodal", "fusion")
        for name, value in (("loss", 0.5), ("validation/accuracy/image audio", 0.9))
    }


def test_real_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path / "mine", "unimodal", "wandb")
    train(tmp_path / "mine", "fusion", "wandb")
    run = (tmp_path / "mine" / "wandb_run.txt").read_text().strip()
    assert len(list((tmp_path / "mine" / "wandb").glob(f"offline-run-*-{run}"))) >= 1
