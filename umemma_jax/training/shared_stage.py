"""A uni-modal stage that several runs have in common: one of them trains it, the others begin where it ended.

What the stage does hangs on nothing that makes a method, so that with the same recipe and seed it is the same, bit for
bit, in all of them. A run that takes it from another one says so in its workdir.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from umemma_jax import checksums
from umemma_jax import config as config_lib
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.training.workdir import RECORD, read_config, write_record

FILE_NAME = "unimodal_stage_of.json"
OF_LATER_STAGES = ("evaluation.", "fusion.", "method.", "missing.augment", "missing.capacities", "missing.keep")


def share(config: ConfigDict, workdir: Path, owner: Path) -> None:
    """From now on a run takes its uni-modal stage from that of the workdir `owner`, unless it has begun without.

    Raises:
      UserError: the workdir cannot be written.
      ValueError: the stage is not the same.
    """
    changed = config_lib.differences(read_config(owner).to_dict(), config.to_dict())
    if others := [field for field in changed if not field.startswith(OF_LATER_STAGES)]:
        raise ValueError(f"the uni-modal stages of {owner} and {workdir} differ in {others}")

    def write() -> None:
        if not (workdir / RECORD).exists():
            write_record(workdir, FILE_NAME, {"workdir": os.path.relpath(owner, workdir)})

    distributed.by_first(write)


def owner_of(workdir: Path) -> Path | None:
    """The workdir whose uni-modal stage is this run's too; None where it trains its own.

    Raises:
      UserError: it is gone, or the note of it is damaged.
    """
    path = workdir / FILE_NAME
    try:
        owner = workdir / checksums.read_sealed(path)["workdir"]
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): train in a new workdir") from error
    if not (owner / RECORD).exists():
        raise UserError(f"{path}: {owner.resolve()}, whose uni-modal stage is this run's, is gone: put it back")
    return owner
