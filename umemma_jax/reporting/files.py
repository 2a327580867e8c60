"""Files of results: written beside their folder first, then put in place together."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from umemma_jax.errors import UserError


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes all files beside the folder first, then moves them in by rename.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(os.path.realpath(folder))  # Path.resolve raises RuntimeError of links in a circle
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
        if folder.exists():
            for name in files:
                os.replace(partial / name, folder / name)
        else:
            os.rename(partial, folder)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; free space or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
