"""The text files of a checkpoint, decoded and parsed, or refused in one line."""

import json
from typing import Any

from umemma_jax.errors import UserError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how a file starts that `git clone` without LFS leaves


def check_start(start: bytes, where: Any) -> None:
    """Raises UserError if a file that starts so is not the file itself, but what stands for it."""
    if start.startswith(LFS_POINTER):
        raise UserError(f"{where}: is a Git-LFS pointer and not the file itself: fetch it with `git lfs pull`")
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html"):
        raise UserError(f"{where}: is a web page and not the file itself: download it again")


def decode(data: bytes, where: Any) -> str:
    """The text of a UTF-8 file. Raises UserError, naming `where`, if it is none."""
    check_start(data[:64], where)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: damaged ({one_line(error)}): fetch the checkpoint again") from error


def parse_object(text: str, where: Any) -> dict[str, Any]:
    """The JSON object of a text. Raises UserError, naming `where`, if it is none."""
    return _parse(text, dict, "object", where)


def parse_list(text: str, where: Any) -> list[Any]:
    """The JSON list of a text. Raises UserError, naming `where`, if it is none."""
    return _parse(text, list, "list", where)


def _parse(text: str, kind: type, name: str, where: Any) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: damaged ({one_line(error)}): fetch the checkpoint again") from error
    if not isinstance(value, kind):
        raise UserError(f"{where}: damaged (holds no JSON {name}): fetch the checkpoint again")
    return value


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split())
