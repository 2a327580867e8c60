"""How commands start and end: in odd streams, without a home, under signals, and out of memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from umemma_jax import command
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SAYS = "print('caf\\xe9'); print('\\udc80'); open(sys.argv[1], 'w').write('done')"


def start(code, *arguments, **options):
    """A process that runs `code` as a command."""
    program = f"import sys; from umemma_jax import command; command.run(lambda: exec({code!r}, {{'sys': sys}}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("environment", {})
    words = [sys.executable, "-c", program, *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(words, env=environment, text=True, **streams)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_written_out(tmp_path, encoding):
    process = start(SAYS, tmp_path / "file", environment={"PYTHONIOENCODING": encoding}, encoding=encoding)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert output == ("caf\\xe9\n\\udc80\n" if encoding == "ascii" else "café\n\\udc80\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "| true"])
def test_no_command_ends_by_what_it_prints(tmp_path, closed):
    code = SAYS.replace("print('caf", "print('much' * 100000); print('caf")
    program = f"import sys; from umemma_jax import command; command.run(lambda: exec({code!r}, {{'sys': sys}}))"
    words = f'set -o pipefail; "$0" -c "$1" "$2" {closed}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        ["bash", "-c", words, sys.executable, program, tmp_path / "file"], env=environment, capture_output=True
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert (tmp_path / "file").read_text() == "done"


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path):
    code = "sys.exit(0 if open(sys.argv[1], 'w').fileno() > 2 else 3)"
    words = '"$0" -c "$1" "$2" >&- 2>&- <&-'
    program = f"import sys; from umemma_jax import command; command.run(lambda: exec({code!r}, {{'sys': sys}}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", words, sys.executable, program, tmp_path / "file"], env=environment, check=True)


@pytest.mark.parametrize("number", command.INTERRUPTIONS)
def test_a_signal_cleans_up_and_ends_in_one_line(tmp_path, number):
    code = """
try:
    print("ready")
    import time
    time.sleep(600)
finally:
    open(sys.argv[1], "w").write("cleaned up")
"""
    process = start(code, tmp_path / "file")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (128 + number, "")
    assert output.endswith("interrupted; the same command continues\n")
    assert (tmp_path / "file").read_text() == "cleaned up"


def test_a_signal_in_a_destructor_is_heeded():
    code = """
import os, signal
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
del Late
"""
    code = code.replace("del Late\n", "late = Late(); del late; print('went on')\n")
    process = start(code)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "")
    assert output == "interrupted; the same command continues\n"


def test_a_signal_that_is_ignored_stays_so():
    words = "trap '' HUP; " + '"$0" -c "$1"'
    code = "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('went on')"
    program = f"from umemma_jax import command; command.run(lambda: exec({code!r}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    output = subprocess.run(["bash", "-c", words, sys.executable, program], env=environment, capture_output=True)
    assert (output.returncode, output.stdout) == (0, b"went on\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a\nb\x1b[31m\u202e"), r"error: a b\x1b[31m\u202e"),
        (OSError(28, "No space left on device", "x"), "error: [Errno 28] No space left on device: 'x'"),
        (
            MemoryError("Unable to allocate 8 TiB"),
            "error: out of memory (Unable to allocate 8 TiB): lower config.",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GiB.\nmore"), "error: out of memory (RESOURCE_EXHAUSTED: 9 GiB.): lower"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys, error, line):
    def action():
        raise error

    assert command.status(action) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(line) and errors.count("\n") == 1


def test_an_error_of_programming_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command.status(lambda: 1 // 0)


def test_a_variable_that_jax_refuses_is_named():
    message = r"^JAX_NUM_CPU_DEVICES in the environment: .*abc.*: mend or unset it"
    with pytest.raises(UserError, match=message), command.loading():
        raise ValueError('Invalid value "abc" for JAX flag jax_num_cpu_devices')
    with pytest.raises(ValueError, match=r"^anything else$"), command.loading():
        raise ValueError("anything else")


# Places.


def test_the_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.cache_folder() == tmp_path / ".cache" / "umemma_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert command.cache_folder() == tmp_path / "kept" / "umemma_jax"


def test_without_a_home_it_is_a_folder_of_ones_own_among_the_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = command.cache_folder()
    assert folder == tmp_path / f"umemma_jax-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # others could have put programs into it
    assert command.cache_folder() is None


def test_where_nothing_can_be_written_nothing_is_cached(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert command.cache_folder() is None
