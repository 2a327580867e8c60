"""Packages that not everyone needs, and the extra of setup.cfg that brings them."""

from collections.abc import Iterator
from contextlib import contextmanager

from umemma_jax.errors import UserError


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """For imports of what `pip install 'umemma_jax[extra]'` brings.

    Args:
      extra: of setup.cfg.
      what: needs it, for people: "--scheduler=...", "clip.mp4".

    Raises:
      UserError: a package is not installed, which names the extra.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == __package__:
            raise  # an error of programming
        raise UserError(
            f"{what}: needs {error.name or extra}, which is not installed: pip install 'umemma_jax[{extra}]'"
        ) from error
