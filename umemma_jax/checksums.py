"""Checksums of what is written here and read back: CRC-32C, which finds any burst of up to 32 flipped bits.

A JSON file states its own in the field `crc32c`; a folder states those of its files in `checksums.json`.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import google_crc32c

from umemma_jax.errors import UserError

FIELD = "crc32c"
FILE_NAME = "checksums.json"
_CHUNK = 1 << 22  # bytes read at a time


def of_bytes(data: bytes) -> str:
    """Eight hexadecimal digits."""
    return f"{google_crc32c.value(data):08x}"


def of_file(path: Path) -> str:
    """As `of_bytes`, of the file's contents. Raises OSError."""
    crc = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            crc = google_crc32c.extend(crc, chunk)
    return f"{crc:08x}"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-able content with its own checksum as the last field."""
    content = {key: value for key, value in content.items() if key != FIELD}
    return {**content, FIELD: of_bytes(_canonical(content))}


def intact(content: Mapping[str, Any]) -> bool:
    """Whether the content is as `seal` wrote it. Content without a checksum is."""
    return FIELD not in content or seal(content)[FIELD] == content[FIELD]


def check_sealed(content: Mapping[str, Any], where: str) -> None:
    """Raises UserError, naming `where`, unless the content is intact."""
    if not intact(content):
        raise UserError(
            f"{where}: does not match its checksum, so it was damaged or edited: make it again, "
            f"or remove the field '{FIELD}' if the change is yours"
        )


def write_folder(folder: Path, about: Mapping[str, Any] | None = None, without: Collection[str] = ()) -> None:
    """States lengths and checksums of all files of the folder, at any depth, in `checksums.json`.

    Args:
      folder: whose files are complete.
      about: what else is stated there, for `about` to read.
      without: paths within the folder that are left out, as they are still to be changed.
    """
    left_out = {folder / FILE_NAME, *(folder / name for name in without)}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in left_out)
    found = {path.relative_to(folder).as_posix(): [path.stat().st_size, of_file(path)] for path in files}
    partial = folder / f".{FILE_NAME}.partial"
    content = seal({"about": dict(about or {}), "files": found})
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / FILE_NAME)


def about(folder: Path) -> dict[str, Any] | None:
    """What `write_folder` was told of the folder; None where there are no checksums. Raises UserError if damaged."""
    content = _stated(folder)
    return None if content is None else content["about"]


def damaged(folder: Path) -> str | None:
    """The first file that is not as `write_folder` found it, and how, or None. A folder without checksums is whole."""
    try:
        content = _stated(folder)
    except UserError as error:
        return str(error)
    for name, (size, crc) in (content or {"files": {}})["files"].items():
        path = folder / name
        try:
            if path.stat().st_size != size:
                return f"{name}: has {path.stat().st_size} bytes in place of {size}"
            if of_file(path) != crc:
                return f"{name}: does not match its checksum"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def _stated(folder: Path) -> dict[str, Any] | None:
    """The content of the folder's checksums.json, None if there is none. Raises UserError if it is damaged."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        check_sealed(content, FILE_NAME)
        files = {name: (size, crc) for name, (size, crc) in content["files"].items()}
        return {"about": dict(content.get("about", {})), "files": files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise UserError(f"{FILE_NAME}: is damaged") from error


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
