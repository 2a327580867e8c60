"""A part of a report, before it is Markdown or a page."""

from typing import NamedTuple


class Part(NamedTuple):
    """A title, sentences under it, and a table; header and rows may be empty."""

    title: str
    sentences: list[str]
    header: list[str]
    rows: list[list[str]]
