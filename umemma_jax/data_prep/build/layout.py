"""Whether a folder has the layout of a raw download; if not, which one nearby has."""

from collections.abc import Sequence
from pathlib import Path

from umemma_jax.errors import UserError


def check_layout(raw: Path, needed: Sequence[str], dataset: str) -> None:
    """Checks that files and folders are where they should be.

    Args:
      raw: the folder given as --raw.
      needed: paths inside it.
      dataset: its name, for the error.

    Raises:
      UserError: something is missing; the message says so if `raw` is a level too high or too low.
    """

    def has_all(folder: Path) -> bool:
        return all((folder / path).exists() for path in needed)

    if has_all(raw):
        return
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder: point --raw at {dataset}")
    above = next((folder for folder in raw.resolve().parents[:3] if has_all(folder)), None)
    if above:
        raise UserError(f"{raw}: lies inside the raw data: give the folder above, --raw={above}")
    below = next((folder for folder in sorted(raw.glob("*/")) if has_all(folder)), None)
    if below:
        raise UserError(f"{raw}: lies above the raw data: give the folder inside, --raw={below}")
    missing = next(path for path in needed if not (raw / path).exists())
    raise UserError(f"{raw}: no {missing}: point --raw at {dataset}, the folder with {', '.join(needed)}")
