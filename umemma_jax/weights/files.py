"""Weight files on disk as NumPy arrays, one tensor at a time: safetensors, and PyTorch's pickles, never executed."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from umemma_jax.errors import UserError

CONFIG = "config.json"
PICKLES = (".bin", ".pth", ".pt", ".th")
# What a folder may hold, by preference: Hugging Face's names, then any single file.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
STATE_KEYS = ("state_dict", "model")  # where training scripts keep the weights among other things
SAFETENSORS_NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"} | {
    f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
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
    readers: dict[str, Callable[[], np.ndarray]] = field(repr=False)

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in (bfloat16 is that of ml_dtypes)."""
        return self.readers[name]()

    def sha256(self) -> dict[str, str]:
        """File name -> SHA-256 of its contents, of the weights and of config.json."""
        config = self.files[0].parent / CONFIG
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
    files = _shards(path)
    shapes, readers = {}, {}
    for file in files:
        opened = _open_safetensors(file) if file.suffix == ".safetensors" else _open_pickle(file)
        for name, (shape, reader) in opened.items():
            if name in readers:
                raise UserError(f"{path}: tensor {name} is in two of its files, keep one")
            shapes[name], readers[name] = shape, reader
    if not readers:
        raise UserError(f"{path}: holds no tensors, name a file of weights")
    return Weights(files, read_json(path.parent / CONFIG) if (path.parent / CONFIG).exists() else {}, shapes, readers)


def _weight_file(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, name a checkpoint")
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).exists():
            return path / name
    found = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", *PICKLES))
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{path}: several weight files ({', '.join(file.name for file in found)}), name one of them")
    raise UserError(f"{path}: no weights in this folder, looked for {', '.join(NAMES)}, *{', *'.join(PICKLES)}")


def _shards(path: Path) -> tuple[Path, ...]:
    if path.suffix != ".json":
        return (path,)
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: has no weight_map, name the weights themselves or a shard index")
    files = tuple(path.parent / name for name in sorted(set(weight_map.values())))
    for file in files:
        if not file.exists():
            raise UserError(f"{file}: missing, though {path.name} names it: download it again")
    return files


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises UserError where it holds none."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): download it again") from error
    if not isinstance(contents, dict):
        raise UserError(f"{path}: holds no JSON object: download it again")
    return contents


def _open_safetensors(path: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]]:
    try:
        file = safe_open(path, "numpy")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is no whole safetensors file ({error}): download it again") from error

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: _read_safetensors(file, path, name)

    return {name: (shape, reader(name)) for name, shape in shapes.items()}


def _read_safetensors(file: Any, path: Path, name: str) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except (SafetensorError, TypeError, AttributeError) as error:
        dtype = file.get_slice(name).get_dtype()
        raise UserError(f"{path}: tensor {name} of dtype {dtype} cannot be read ({error}): save it as F32") from error


def _open_pickle(path: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading PyTorch's own files needs PyTorch: pip install 'umemma_jax[torch]' (safetensors need not)"
        ) from None
    state = _state_dict(_load_pickle(path, torch), path, torch)

    def reader(name: str, tensor: Any) -> Callable[[], np.ndarray]:
        return lambda: _to_numpy(tensor, f"{path}: tensor {name}", torch)

    return {name: (tuple(tensor.shape), reader(name, tensor)) for name, tensor in state.items()}


def _load_pickle(path: Path, torch: Any) -> Any:
    """What a pickle holds, if it holds nothing but data: unpickling anything else can run any code."""
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()  # PyTorch does not check
            if broken:
                raise UserError(f"{path}: damaged ({broken} does not match its checksum): download it again")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*TorchScript", UserWarning)  # which is refused, below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True if zipped else None)
    except UserError:
        raise
    except Exception as error:  # torch.load raises anything on damaged files, down to KeyError
        text = str(error)
        if found := re.search(r"GLOBAL (\S+)", text):
            raise UserError(
                f"{path}: refused, the pickle asks to run {found[1]}, and so might run anything: load it where you "
                "trust it, and save its state dict alone"
            ) from error
        if "TorchScript" in text:
            raise UserError(f"{path}: refused, a TorchScript archive holds code: save its state dict alone") from error
        reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:120]
        raise UserError(f"{path}: cannot be read as PyTorch weights ({reason}): download it again") from error


def _state_dict(loaded: Any, path: Path, torch: Any) -> dict[str, Any]:
    """The tensors by name: the dict itself, or the one that it holds among other things."""
    while isinstance(loaded, Mapping):
        inner = [loaded[key] for key in STATE_KEYS if isinstance(loaded.get(key), Mapping)]
        if not inner:
            return {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
        loaded = inner[0]
    raise UserError(f"{path}: holds a {type(loaded).__name__} and no state dict, save the state dict")


def _to_numpy(tensor: Any, where: str, torch: Any) -> np.ndarray:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise UserError(f"{where} is quantised or sparse, save it dense, as float32")
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


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


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A path to write to, a file or a folder, that becomes `path` by rename if all goes well, and else vanishes.

    Raises:
      UserError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}): make room, or name another") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # not there, or not even a folder that it could be in
                partial.unlink()
