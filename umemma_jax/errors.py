"""The one exception that means: the user can mend this."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in input, configuration or environment, said in one line.

    The message names what is wrong, where (file, record, config field) and what to do. Entry points print it
    without a traceback and exit with status 1.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question about the nearest of the names that there are, with a space behind it; empty if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
