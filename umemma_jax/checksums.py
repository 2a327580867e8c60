"""Checksums of what is written here and read back: CRC-32C, which finds any burst of up to 32 flipped bits.

A JSON file states its own in the field `crc32c`; a folder states those of its files in `checksums.json`.
"""

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from umemma_jax.errors import UserError

FIELD = "crc32c"
FILE_NAME = "checksums.json"
_CHUNK = 1 << 22  # bytes read at a time: for much less, threads would mostly wait for the interpreter
_PART = 1 << 26  # bytes of a file that have a checksum of their own, so that every core computes some


def of_bytes(*parts: bytes) -> str:
    """Eight hexadecimal digits, of bytes that follow one another."""
    checksum = google_crc32c.Checksum()
    for part in parts:
        checksum.update(part)
    return checksum.hexdigest().decode()


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


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON-able content with its checksum; the file appears complete, or stays as it was. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(seal(content), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, with the checksum. Raises OSError, or ValueError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not (isinstance(content, dict) and intact(content)):
        raise ValueError("it does not match its checksum")
    return content


def write_folder(folder: Path, about: Mapping[str, Any] | None = None, without: Collection[str] = ()) -> None:
    """States lengths and checksums of all files of the folder, at any depth, in `checksums.json`.

    Args:
      folder: whose files are complete.
      about: what else is stated there, for `about` to read.
      without: paths within the folder that are left out, as they are still to be changed.
    """
    left_out = {folder / FILE_NAME, *(folder / name for name in without)}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in left_out)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    with ThreadPoolExecutor() as threads:
        found = {name: _of_parts(threads, folder / name, size, _PART) for name, size in sizes.items()}
        stated = {name: (sizes[name], _joined(parts)) for name, parts in found.items()}
    write_sealed(folder / FILE_NAME, {"about": dict(about or {}), "part": _PART, "files": stated})


def about(folder: Path) -> dict[str, Any] | None:
    """What `write_folder` was told of the folder; None where there are no checksums. Raises UserError if damaged."""
    content = _stated(folder)
    return None if content is None else content.about


def damaged(folder: Path) -> str | None:
    """The first file that is not as `write_folder` found it, and how, or None. A folder without checksums is whole."""
    try:
        content = _stated(folder)
    except UserError as error:
        return str(error)
    if content is None:
        return None
    with ThreadPoolExecutor() as threads:
        found = {
            name: _of_parts(threads, folder / name, size, content.part) for name, (size, _) in content.files.items()
        }
        for name, (size, crcs) in content.files.items():
            try:
                if (length := (folder / name).stat().st_size) != size:
                    return f"{name}: has {length} bytes in place of {size}"
                if _joined(found[name]) != crcs:
                    return f"{name}: does not match its checksum"
            except OSError as error:
                return f"{name}: {error.strerror}"
    return None


class _Stated(NamedTuple):
    """The content of a folder's checksums.json.

    Attributes:
      about: what the folder is.
      files: length and checksums of each, by path within the folder.
      part: bytes that a checksum is of; None in older ones, where it is of the whole file.
    """

    about: dict[str, Any]
    files: dict[str, tuple[int, str]]
    part: int | None


def _stated(folder: Path) -> _Stated | None:
    """None if there is none. Raises UserError if it is damaged."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        check_sealed(content, FILE_NAME)
        files = {name: (int(size), crcs) for name, (size, crcs) in content["files"].items()}
        return _Stated(dict(content.get("about", {})), files, content.get("part"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise UserError(f"{FILE_NAME}: is damaged") from error


def _of_parts(threads: Executor, path: Path, size: int, part: int | None) -> list[Future[str]]:
    """Begins to compute the checksums of a file's parts, or of the whole where `part` is None."""
    size = max(size, 1)  # an empty file is one part as well
    part = part or size
    return [threads.submit(_of_part, path, start, part) for start in range(0, size, part)]


def _joined(parts: Sequence[Future[str]]) -> str:
    return "".join(part.result() for part in parts)


def _of_part(path: Path, start: int, size: int) -> str:
    """As `of_bytes`, of so many bytes of a file, or as many as there are. Raises OSError."""
    checksum = google_crc32c.Checksum()
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while size and (chunk := file.read(min(size, _CHUNK))):
            checksum.update(chunk)
            size -= len(chunk)
    return checksum.hexdigest().decode()


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
