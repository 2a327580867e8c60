"""PyTorch's own files: unpickled only if they hold nothing but data, and their tensors as NumPy arrays."""

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from umemma_jax.errors import UserError

SUFFIXES = (".bin", ".pth", ".pt", ".th")
# Where training scripts keep the weights among other things, by preference.
STATE_KEYS = ("state_dict", "model", "model_state_dict", "model_state", "weights", "net", "network", "module")
SHOWN = 6  # keys in an error message
FLOATS = ("float16", "bfloat16", "float32", "float64")
OTHERS = ("bool", "int8", "uint8", "int16", "int32", "int64")

Reader = Callable[[], np.ndarray]


def open_pickle(path: Path) -> dict[str, tuple[tuple[int, ...], Reader]]:
    """Name -> shape and function that reads it, of the tensors of a file.

    Raises:
      UserError: PyTorch is not installed; the file is damaged, holds code or no state dict.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading PyTorch's own files needs PyTorch: pip install 'umemma_jax[torch]' (safetensors need not)"
        ) from None
    state = _state_dict(_load(path, torch), path, torch)
    largest = path.stat().st_size

    def reader(name: str, tensor: Any) -> Reader:
        return lambda: _to_numpy(tensor, largest, f"{path}: tensor {name}", torch)

    return {name: (tuple(tensor.shape), reader(name, tensor)) for name, tensor in state.items()}


def _load(path: Path, torch: Any) -> Any:
    """What a pickle holds, if it holds nothing but data: unpickling anything else can run any code."""
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of TorchScript, which is refused, below, and of old forms
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


def _check_archive(path: Path) -> None:
    """Raises UserError if the archive is damaged, which PyTorch does not check, or larger unpacked than it is."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # PyTorch stores tensors as they are. Compressed, a small file may fill the memory.
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise UserError(f"{path}: refused, its archive is compressed: save it with torch.save")
        if broken := archive.testzip():
            raise UserError(f"{path}: damaged ({broken} does not match its checksum): download it again")


def _state_dict(loaded: Any, path: Path, torch: Any) -> dict[str, Any]:
    """The tensors by name: the dict itself, or the one that it holds among other things."""
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__} and no state dict, save the state dict")
    for key in STATE_KEYS:
        if isinstance(loaded.get(key), Mapping):
            return _state_dict(loaded[key], path, torch)
    tensors = {name: x for name, x in loaded.items() if isinstance(name, str) and isinstance(x, torch.Tensor)}
    if tensors or not loaded:
        return tensors
    keys = ", ".join(str(key)[:40] for key in list(loaded)[:SHOWN])
    raise UserError(
        f"{path}: holds no tensors, but {keys}{' and more' if len(loaded) > SHOWN else ''}: save the weights' own "
        f"state dict, or put it under {' or '.join(STATE_KEYS[:2])}"
    )


def _to_numpy(tensor: Any, largest: int, where: str, torch: Any) -> np.ndarray:
    """The values of a tensor; none is larger than the file of `largest` bytes, unless it repeats itself."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        raise UserError(f"{where} is quantised or sparse, save it dense, as float32")
    if tensor.device.type != "cpu":
        raise UserError(f"{where} has no values (device {tensor.device}), save it from where it has")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in (*FLOATS, *OTHERS):
        raise UserError(f"{where} is {dtype}, save it as float32")
    if tensor.numel() * tensor.element_size() > largest:
        raise UserError(f"{where} of {tuple(tensor.shape)} repeats its values, save it with .contiguous()")
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
