"""Weight files on disk as NumPy arrays, one tensor at a time: safetensors, and PyTorch's pickles, never executed."""

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from umemma_jax.data import documents
from umemma_jax.errors import UserError
from umemma_jax.weights import pickles

CONFIG = "config.json"
# What a folder may hold, by preference: Hugging Face's names, then any single file.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SAFETENSORS_NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"} | {
    f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
LARGEST_JSON = 256 << 20  # bytes, more than the index of any sharded checkpoint
_ENTRY_BYTES = 160  # more than one tensor's entry in the header of a safetensors file takes, less its name


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint, in one file or several, read when asked for.

    Attributes:
      files: that hold them.
      config: contents of the `config.json` beside them; {} where there is none.
      shapes: of the tensors, by name.
      readers: name -> function that reads the tensor, as it is stored.
    """

    files: tuple[Path, ...]
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    readers: dict[str, pickles.Reader] = field(repr=False)

    @property
    def folder(self) -> Path:
        """Where they lie, and what belongs to them beside them."""
        return self.files[0].parent

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in (bfloat16 is that of ml_dtypes)."""
        return self.readers[name]()

    def sha256(self) -> dict[str, str]:
        """File name -> SHA-256 of its contents, of the weights and of config.json."""
        config = self.folder / CONFIG
        digests = {}
        for path in (*self.files, *([config] if self.config else [])):
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests


def open_weights(path: str | os.PathLike) -> Weights:
    """Opens a weight file, or the one in a folder.

    Args:
      path: `.safetensors`, `.bin`, `.pth`, `.pt` or `.th`, the `.index.json` of a sharded one, or a folder with one.

    Raises:
      UserError: there is none, it is damaged, holds code or no tensors; or it is a pickle and PyTorch is not installed.
    """
    path = _weight_file(Path(path))
    shards = _shards(path)
    shapes, readers = {}, {}
    for file in shards or [path]:
        check_is_file(file)
        opened = _open_safetensors(file) if file.suffix == ".safetensors" else pickles.open_pickle(file)
        for name, (shape, reader) in opened.items():
            if name in readers:
                raise UserError(f"{path}: tensor {name} is in two of its files, keep one")
            shapes[name], readers[name] = shape, reader
    if not readers:
        raise UserError(f"{path}: holds no tensors, name a file of weights")
    if strays := {name for names in shards.values() for name in names} ^ (readers.keys() if shards else set()):
        raise UserError(f"{path}: does not name what its files hold ({min(strays)}): download all of them again")
    config = path.parent / CONFIG
    return Weights(tuple(shards or [path]), read_json(config) if config.exists() else {}, shapes, readers)


def _weight_file(path: Path) -> Path:
    if not os.path.exists(path):  # which, unlike Path.exists, is no exception for a name of 300 letters
        raise UserError(f"{path}: no such file or folder, name a checkpoint")
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).exists():
            return path / name
    try:
        found = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", *pickles.SUFFIXES))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): see to its permissions") from error
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{path}: several weight files ({', '.join(file.name for file in found)}), name one of them")
    raise UserError(
        f"{path}: no weights in this folder, looked for {', '.join(NAMES)}, *{', *'.join(pickles.SUFFIXES)}"
    )


def _shards(path: Path) -> dict[Path, list[str]]:
    """The files that an index names -> the tensors that it says are in them; {} for a file of weights itself."""
    if path.suffix != ".json":
        return {}
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: has no weight_map, name the weights themselves or a shard index")
    found = {}
    for tensor, name in weight_map.items():
        suffix = Path(name).suffix if isinstance(name, str) and name == Path(name).name else ""
        if suffix not in (".safetensors", *pickles.SUFFIXES):
            raise UserError(f"{path}: names {name!r:.80}, which is no weight file beside it: download it again")
        found.setdefault(path.parent / name, []).append(tensor)
    for file in found:
        if not os.path.exists(file):
            raise UserError(f"{file}: missing, though {path.name} names it: download it again")
    return dict(sorted(found.items()))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises UserError where it holds none."""
    return documents.parse_object(_read_text(path), path)


def read_json_list(path: Path) -> list[Any]:
    """The JSON list of a file. Raises UserError where it holds none."""
    return documents.parse_list(_read_text(path), path)


def _read_text(path: Path) -> str:
    check_is_file(path)
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"{path}: has {path.stat().st_size} bytes, which no such file has: download it again")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): download it again") from error
    return documents.decode(data, path)


def check_is_file(path: Path) -> None:
    """Raises UserError if this is no file that can be read, or stands for another one."""
    if not path.is_file():
        raise UserError(f"{path}: is no file, name a checkpoint")
    try:
        with path.open("rb") as file:
            documents.check_start(file.read(64), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): see to its permissions") from error


def _open_safetensors(path: Path) -> dict[str, tuple[tuple[int, ...], pickles.Reader]]:
    try:
        file = safe_open(path, "numpy")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: is no whole safetensors file ({documents.one_line(error)}): download it again"
        ) from error

    def reader(name: str) -> pickles.Reader:
        return lambda: _read_safetensors(file, path, name)

    return {name: (shape, reader(name)) for name, shape in shapes.items()}


def _read_safetensors(file: Any, path: Path, name: str) -> np.ndarray:
    dtype = file.get_slice(name).get_dtype()
    if dtype not in SAFETENSORS_NAMES.values():
        raise UserError(f"{path}: tensor {name} is {dtype}, save it as F32")
    try:
        return file.get_tensor(name)
    except (SafetensorError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: tensor {name} of dtype {dtype} cannot be read ({error}): save it as F32") from error


def write_safetensors(path: Path, names: Sequence[str], arrays: Iterable[np.ndarray]) -> None:
    """Writes arrays as they come, so that they need not be in memory together, as with safetensors' own writer.

    Args:
      path: of the file.
      names: of the arrays, in their order.
      arrays: one for each name.
    """
    # The header stands first, and is known last: room is left for it, and what is too much is filled with spaces.
    room = sum(len(json.dumps(name)) + _ENTRY_BYTES for name in names)
    room += -room % 8
    header, end = {}, 0
    with path.open("wb") as file:
        file.seek(8 + room)
        for name, array in zip(names, arrays, strict=True):
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            start, end = end, end + array.nbytes
            dtype = SAFETENSORS_NAMES[array.dtype.name]
            header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (start, end)}
        file.seek(0)
        file.write(struct.pack("<Q", room) + json.dumps(header).encode().ljust(room))
