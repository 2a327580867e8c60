"""Test session set-up: simulated devices, strict ranks, parsed flags, real data where it is at hand."""

import importlib.metadata
import importlib.util
import os
import pathlib
import signal
import tempfile

# Sizes XLA's thread pool: with fewer threads than simulated devices, queued collectives deadlock on small machines.
os.environ.setdefault("NPROC", "16")
# Tests, and the processes they start, compile the same small programs many times over.
_COMPILED = tempfile.TemporaryDirectory(prefix="umemma_jax_compiled_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# LLVM takes half the time, and nearly all programs of the tests run for moments; for those that do not, `optimised`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# With XLA's former emitters compiling takes half of that again. Later versions do not have them, and end the process
# that asks for them; so does the compiler for TPUs.
if importlib.metadata.version("jaxlib").startswith("0.10.") and importlib.util.find_spec("libtpu") is None:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# A shell's background job ignores Ctrl-C, one under nohup a hang-up, and so would the processes that tests interrupt.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()  # grain reads flags
pytest.register_assert_rewrite("tests.encoders.parity")


TESTS = pathlib.Path(__file__).resolve().parent
# The files that take longest, as they begin first: the workers then end together.
LONGEST = (
    "test_benchmarks.py",
    "training/test_train.py",
    "devices/test_distributed.py",
    "test_configs.py",
    "test_cli.py",
    "training/test_steps.py",
    "training/test_features.py",
    "evaluation/test_evaluate.py",
)


def pytest_collection_modifyitems(items):
    files = [str(TESTS / name) for name in LONGEST]
    items.sort(key=lambda item: files.index(str(item.path)) if str(item.path) in files else len(files))


def pytest_addoption(parser):
    parser.addoption("--every-image", action="store_true", help="real weights classify all of CIFAR-10's test images")


SHARED_DATA = TESTS.parents[1] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder with the real datasets; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA.parent.name}/data beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="module", autouse=True)
def programs_forgotten():
    """What a test file has compiled is of no use to the next ones, and gigabytes in the end."""
    yield
    jax.clear_caches()


@pytest.fixture
def optimised():
    """Programs are compiled as they are outside of tests."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def one_device():
    """Experiments of the test file run on one device, since simulated ones share two cores."""
    from umemma_jax import experiment  # not above, as not every test needs them
    from umemma_jax.devices import sharding

    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: mesh)
        yield
