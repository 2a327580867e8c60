"""The workdir of a run: which run it belongs to, for as long as it stands, and what killed processes left in it."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from umemma_jax import checksums
from umemma_jax import config as config_lib
from umemma_jax.addresses import redacted
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.training.lock import locked, not_written

RECORD = "config.json"
# Under which names files and folders are written before they get their own.
PARTIAL = (".*.partial", "*/*.partial-*")
TURN_SECONDS = 60  # to wait for another process that writes its results


@contextlib.contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """Until the end, no other run trains in the workdir; what a killed one left half-written is removed.

    Of several processes the first does this for all.

    Raises:
      UserError: another run does, or the workdir cannot be written.
    """
    with contextlib.ExitStack() as stack:
        distributed.by_first(lambda: stack.enter_context(locked(workdir)))
        distributed.by_first(lambda: _remove_partial(workdir))
        yield


def write_into(workdir: Path, write: Callable[[], None]) -> None:
    """Calls `write`, which puts results into the workdir; other processes wait for their turn.

    Of several processes of one run the first does this for all.

    Raises:
      UserError: what `write` raises, or another process does not come to its end.
    """

    def in_turn() -> None:
        with locked(workdir, TURN_SECONDS):
            write()

    distributed.by_first(in_turn)


def claim_workdir(config: ConfigDict, fingerprints: Mapping[str, Any], workdir: Path) -> None:
    """Writes `config.json` on the first run; on a later one makes sure that config and fingerprints are the same.

    Of several processes the first writes, and all make sure.

    Raises:
      UserError: the workdir cannot be written, or belongs to a run with another config.
    """
    distributed.first_then_others(lambda: _claim(config, fingerprints, workdir))


def write_record(workdir: Path, name: str, content: Mapping[str, Any]) -> None:
    """Writes JSON-able content with its checksum as a file of the workdir. Raises UserError if it cannot be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        checksums.write_sealed(workdir / name, content)
    except OSError as error:
        raise not_written(workdir, error) from error


def read_config(workdir: Path) -> ConfigDict:
    """The recipe of the run that the workdir belongs to.

    Raises:
      UserError: it belongs to none, or `config.json` is damaged.
    """
    path = workdir / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checksums.check_sealed(content, str(path))
        return ConfigDict(config_lib.with_tuples(content["config"]))
    except OSError as error:
        raise UserError(
            f"--config is missing, and {path} cannot be read ({error.strerror}): name a recipe, e.g. "
            "--config=quickstart, or the --workdir of a run"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): name the recipe with --config") from error


def run_digest(config: ConfigDict, fingerprints: Mapping[str, Any]) -> str:
    """What tells a run from others: of its config, without the fields that may change, and the fingerprints."""
    record = _record(config_lib.fixed(config.to_dict()), fingerprints)
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _record(config: Mapping[str, Any], fingerprints: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json states, without what is secret."""
    return json.loads(redacted(json.dumps({"config": config, **fingerprints}, sort_keys=True)))


def _claim(config: ConfigDict, fingerprints: Mapping[str, Any], workdir: Path) -> None:
    record = _record(config.to_dict(), fingerprints)
    path = workdir / RECORD
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            checksums.write_sealed(path, record)
            return
        known = checksums.read_sealed(path)
        known = json.loads(redacted(json.dumps(known)))  # of an older version: with what is secret
        changed = config_lib.differences(known["config"], record["config"])
        changed += [f"the {name}'s files" for name in fingerprints if known.get(name, {}) != record[name]]
    except OSError as error:
        raise not_written(workdir, error) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it if this is the config that was trained there, "
            "or use another --workdir"
        ) from error
    if changed:
        shown = "; ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
        raise UserError(
            f"--workdir={workdir} holds a run of another config ({shown}): use another --workdir, or the same config"
        )


def _remove_partial(workdir: Path) -> None:
    for pattern in PARTIAL:
        for path in workdir.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
