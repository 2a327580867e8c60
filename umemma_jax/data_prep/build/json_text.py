"""JSON as people mean it: every key once."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any


def parse(text: str) -> Any:
    """What a text of JSON holds.

    Raises:
      ValueError: it is no JSON, nested too deeply, or an object in it has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    for key, times in Counter(key for key, _ in pairs).items():
        if times > 1:
            raise ValueError(f"{key!r} comes {times} times")
    return dict(pairs)
