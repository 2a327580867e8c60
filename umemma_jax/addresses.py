"""Addresses of data as they are shown and stored: without what may be secret in them."""

import os
import re

# What stands before the last @ of a host, also where it holds a slash (as keys of S3 do) but is no port; and a query.
_USER = re.compile(r'(?<=:/)(/*)(?:[^\s"/?#]+|[^\s"/?#:]+:(?!\d+[/?#])[^\s"?#]+)@')
_QUERY = re.compile(r'([A-Za-z0-9+.-]:/[^\s"?]*\?)[^\s"]+?(?=[:;,.)\']*(?:[\s"]|$))')


def redacted(text: str | os.PathLike) -> str:
    """A text in which the addresses are without names, passwords and queries, any of which may be secret.

    For all that is shown or stored of them: `https://***@host/data?***`. Any text will do, JSON too; what is redacted
    stays as it is.
    """
    return _QUERY.sub(r"\1***", _USER.sub(r"\1***@", os.fspath(text)))
