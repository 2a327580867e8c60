"""Several processes as one run: real processes on this machine, each with simulated devices, over loopback."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from tests import small_run, test_multi_label
from tests.processes import assert_same_figures, finish, free_port, start_together, wait_for
from umemma_jax import config as config_lib
from umemma_jax import experiment
from umemma_jax.devices import distributed, roll_call
from umemma_jax.errors import UserError
from umemma_jax.methods import METHODS
from umemma_jax.training import train

RECIPE = """
from tests import small_run
from umemma_jax.config import tower_config

def get_config():
    config = small_run.get_config({path!r}, modalities=("image", "vector"), unimodal__epochs=2, fusion__epochs=2)
    config.inputs.vector = tower_config({{"name": "tests.own_encoder"}})
    return config
"""
MULTI_LABEL = """
from tests import test_multi_label

def get_config():
    changes = dict(unimodal__epochs=1, fusion__epochs=1, evaluation__rates=(0.0, 1.0), evaluation__resamples=100)
    return test_multi_label.get_config({path!r}, **changes)
"""
ENDED_SECONDS = distributed.SILENCE_SECONDS + 15  # what docs/many_machines.md promises, and a slow machine's 15 s


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path, missing_share=0.2)
    return path


@pytest.fixture(scope="module")
def recipe(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.py"
    path.write_text(RECIPE.format(path=str(dataset)))
    return path


def start(recipe, workdir, processes, devices, *flags):
    """main.py in so many processes of so many devices each."""
    return start_together(processes, devices, f"--config={recipe}", f"--workdir={workdir}", *flags)


def last_step(workdir, stage):
    return max(int(path.name) for path in (workdir / "checkpoints" / stage).iterdir())


def parameters(recipe, workdir):
    """Final variables of every stage, read by this process of four devices."""
    trained = train.load(experiment.build(config_lib.load(str(recipe))), workdir)
    return jax.device_get((trained.unimodal, trained.fusion))


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.fixture(scope="module")
def one_process(recipe, tmp_path_factory):
    """Workdir of a run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("run") / "one"
    finish(start(recipe, workdir, 1, 4))
    return workdir


@pytest.fixture(scope="module")
def two_processes(recipe, tmp_path_factory):
    """Workdir of a run of two processes with two devices each, and what either printed; one of them got SIGTERM."""
    workdir = tmp_path_factory.mktemp("run") / "two"
    processes = start(recipe, workdir, 2, 2)
    wait_for(processes[0], workdir, "unimodal", 2)
    processes[1].send_signal(signal.SIGTERM)
    stopped, _ = finish(processes)
    assert f"stage unimodal: saved at step {last_step(workdir, 'unimodal')} of 10; the same command" in stopped
    return workdir, finish(start(recipe, workdir, 2, 2))


@pytest.mark.slow
def test_sigterm_to_one_process_saves_the_same_step_on_all_and_they_go_on(recipe, one_process, two_processes):
    assert_close(parameters(recipe, two_processes[0]), parameters(recipe, one_process))


@pytest.mark.slow
def test_two_processes_of_two_devices_report_and_predict_what_one_of_four_does(recipe, one_process, two_processes):
    two_workdir, (first, second) = two_processes
    assert_same_figures(two_workdir, one_process)
    assert "Report: " in first
    assert "Report: " not in second and "loss" not in second  # one writes for all

    predictions = {}
    for workdir, processes, devices in ((one_process, 1, 4), (two_workdir, 2, 2)):
        finish(start(recipe, workdir, processes, devices, "--mode=predict"))
        predictions[processes] = np.load(workdir / "predictions" / "small_test.npz")
    assert predictions[1]["ids"].tolist() == predictions[2]["ids"].tolist() == [f"test{n}" for n in range(41)]
    assert_close(predictions[2]["probabilities"], predictions[1]["probabilities"])


@pytest.mark.slow
def test_two_processes_compare_methods_on_multi_label_data_and_one_finds_them_finished(tmp_path):
    test_multi_label.write_dataset(tmp_path / "data")
    (tmp_path / "recipe.py").write_text(MULTI_LABEL.format(path=str(tmp_path / "data")))
    comparisons = []
    for processes, devices in ((2, 2), (1, 4)):
        flags = ("--mode=compare", "--seeds=1", "--methods=late_fusion,simultaneous")
        first, *others = finish(start(tmp_path / "recipe.py", tmp_path / "run", processes, devices, *flags))
        assert "Comparison: " in first and not any("Comparison: " in output for output in others)
        assert ("fusion 1/" in first) == (processes == 2)  # nothing is trained again
        comparisons.append((tmp_path / "run" / "report" / "comparison.json").read_bytes())
    assert comparisons[0] == comparisons[1]
    paired = json.loads(comparisons[0])["paired"]
    assert paired["metric"] == "tuned_macro_f1"
    compared = {"late_fusion", "simultaneous"} | {name for name in METHODS if hasattr(METHODS[name], "REFERENCE")}
    assert len(paired["differences"]) == 3 * len(compared) * (len(compared) - 1) // 2


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_one_process_of_four_devices_goes_on(recipe, one_process, tmp_path, killed):
    processes = start(recipe, tmp_path / "two", 2, 2)
    wait_for(processes[0], tmp_path / "two", "fusion", 5)
    processes[killed].kill()
    began = time.monotonic()
    _, errors = processes[1 - killed].communicate(timeout=ENDED_SECONDS)
    processes[killed].communicate()
    assert processes[1 - killed].returncode != 0
    # JAX itself says it where the process was waiting for the other's part of a checkpoint.
    said = f"error: process {1 - killed} of 2: another one is gone (" in errors or "another task died" in errors
    assert said, (errors, time.monotonic() - began)
    assert "Traceback" not in errors

    finish(start(recipe, tmp_path / "two", 1, 4))
    assert_close(parameters(recipe, tmp_path / "two"), parameters(recipe, one_process))


@pytest.mark.slow
def test_an_error_of_the_first_process_is_said_once_and_ends_the_other(recipe, tmp_path):
    (tmp_path / "workdir").write_text("a file")
    processes = start(recipe, tmp_path / "workdir", 2, 2)
    outputs = [process.communicate(timeout=ENDED_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert f"error: --workdir={tmp_path / 'workdir'} cannot be written" in outputs[0][1]
    assert "error: process 0 has ended with an error" in outputs[1][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("somewhere", 2, 0), r"--coordinator=somewhere: is not HOST:PORT, nor auto"),
        (("host:", 2, 0), r"is not HOST:PORT"),
        (("http://host:80", 2, 0), r"is not HOST:PORT"),
        (("fe80::1:80", 2, 0), r"an IPv6 address in brackets"),
        (("host:65536", 2, 0), r"the port is one of 1 to 65535"),
        (("host:1234", None, 0), r"say how many --processes there are"),
        (("host:1234", 2, None), r"which --process this is"),
        (("host:1234", 2, 2), r"--process=2: with --processes=2, it is one of 0 to 1"),
    ],
)
def test_what_is_wrong_with_the_flags(arguments, message):
    with pytest.raises(UserError, match=message):
        distributed.join(*arguments)


def test_the_first_process_is_waited_for_only_so_long(monkeypatch):
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 0.5)
    with pytest.raises(
        UserError, match=r"127\.0\.0\.1:1: nobody answers there \(Connection refused\): start --process=0"
    ):
        distributed.join("127.0.0.1:1", 2, 1)


def test_a_host_that_cannot_be_resolved(monkeypatch):
    monkeypatch.setattr(roll_call, "RESOLVE_SECONDS", 0.0)
    for process in (0, 1):
        with pytest.raises(UserError, match=r"nowhere\.invalid:1234: the host cannot be resolved \(.*\): check"):
            distributed.join("nowhere.invalid:1234", 2, process)


@pytest.fixture
def address():
    return roll_call.Address("127.0.0.1", free_port())


def answers(address, processes, callers, seconds=20.0):
    """What process 0 and the others are told; each of `callers` says (process, processes)."""

    def outcome(function, *arguments):
        try:
            function(*arguments, seconds)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(callers) + 1) as threads:
        first = threads.submit(outcome, roll_call.answer, address, processes)
        others = [threads.submit(outcome, roll_call.ask, address, *caller) for caller in callers]
        return first.result(), [other.result() for other in others]


def test_all_are_here(address):
    assert answers(address, 4, [(3, 4), (1, 4), (2, 4)]) == (None, [None] * 3)


def test_two_of_the_same_number(address):
    first, others = answers(address, 3, [(1, 3), (1, 3)])
    assert first == "--processes=3: two processes were started with --process=1: give each its own number"
    assert others == [first.replace("--processes=3", f"--coordinator={address}")] * 2


def test_another_number_of_processes(address):
    first, others = answers(address, 3, [(1, 2)])
    assert first.endswith("process 1 was started with --processes=2, process 0 with --processes=3")
    assert others == [first.replace("--processes=3:", f"--coordinator={address}:")]


def test_who_does_not_come_is_named(address):
    first, others = answers(address, 4, [(2, 4)], seconds=1.0)
    assert first == "--processes=4: process 1, 3 of 4 did not come within 1 s"
    assert others == [first.replace("--processes=4:", f"--coordinator={address}:")]


def test_strangers_at_the_port_are_passed_over(address):
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(roll_call.answer, address, 2, 20.0)
        for said in (b"GET / HTTP/1.1\r\n", b"umemma_jax process one of two\n", b"x" * 1000, b""):
            with roll_call._connected(address, time.monotonic() + 5) as stranger:
                stranger.sendall(said)
        roll_call.ask(address, 1, 2, 20.0)
        assert first.result() is None


def test_the_port_is_in_use(address):
    refused = pytest.raises(UserError, match=rf"port {address.port} of 127\.0\.0\.1: Address already in use: choose")
    with socket.create_server((address.host, address.port)), refused:
        distributed.join(str(address), 2, 0)


def test_the_coordinator_listens_where_the_host_is_named(address, monkeypatch, capsys):
    assert roll_call.listening_address(address) == address
    local = roll_call.Address("localhost", address.port)
    assert roll_call.listening_address(local).host in ("127.0.0.1", "::1")
    assert capsys.readouterr().out == ""
    # A name of loopback to itself, and an address between the machines.
    for found in ("127.0.1.1", "192.0.2.1"):
        monkeypatch.setattr(roll_call, "_resolved", lambda address, found=found: [found])
        assert roll_call.listening_address(roll_call.Address("host0", address.port)).host in roll_call.EVERYWHERE
        assert "host0 is none of this machine's own addresses: listening on all interfaces" in capsys.readouterr().out
    monkeypatch.setenv(roll_call.BIND, "[::1]:80")
    assert roll_call.listening_address(address) == roll_call.Address("::1", 80)


def test_errors_that_have_nothing_to_do_with_other_processes_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError), distributed.losses_told():
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes")


def test_without_jax_s_preemption_service_nobody_is_asked_to_end():
    jax.config.update("jax_enable_preemption_service", False)
    try:
        assert not distributed.asked_to_end()
    finally:
        jax.config.update("jax_enable_preemption_service", True)


def test_alone_everybody_is_first():
    done = []
    distributed.first_then_others(lambda: done.append(1))
    assert done == [1] and distributed.is_first() and not distributed.several()
