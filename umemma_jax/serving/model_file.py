"""The one file of an exported model: a zip archive, not compressed.

| part | what it is |
|---|---|
| `model.json` | what goes in and what comes out, how good the model is, and the SHA-256 of the other parts |
| `program.stablehlo` | the model as a portable StableHLO artifact, of any number of rows |
| `weights.npz` | what the program takes besides inputs, as `numpy.savez` writes it |
| `tokenizers/<modality>/*` | of texts |
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umemma_jax.errors import UserError

FORMAT_VERSION = 1
DESCRIPTION, PROGRAM, WEIGHTS, TOKENIZERS = "model.json", "program.stablehlo", "weights.npz", "tokenizers"


def described(description: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """The content of `model.json`: the description with the format's version and the SHA-256 of each part."""
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    content = {"format_version": FORMAT_VERSION, **description, "sha256": sha256}
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def write(path: Path, description: bytes, parts: Mapping[str, bytes]) -> None:
    """Writes the file, of a description as `described` gives it. Raises OSError."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {DESCRIPTION: description, **parts}.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Back from `write`: the description, and the parts by name.

    Raises:
      UserError: there is no such file, it is none of an exported model, damaged, or of another format version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(_part(archive, DESCRIPTION))
            _check_version(path, description)
            sha256 = dict(description["sha256"])
            parts = {name: _part(archive, name) for name in sha256}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}): name an exported model") from error
    except Exception as error:  # whatever a damaged field leads zipfile into: struct.error, KeyError, zlib.error, ...
        raise _no_model(path, error) from error
    for name, content in parts.items():
        if hashlib.sha256(content).hexdigest() != sha256[name]:
            raise UserError(f"{path}: {name} does not match its SHA-256, so it was damaged: copy the file again")
    return description, parts


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # so that no part is larger than the file
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _check_version(path: str | os.PathLike, description: Mapping[str, Any]) -> None:
    version = description["format_version"]
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version {version} instead of {FORMAT_VERSION}: export the model again with this version "
            f"of umemma_jax, or install the one that wrote it ({description.get('umemma_jax')})"
        )


def _no_model(path: str | os.PathLike, error: Exception) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"{path}: is no exported model, or a damaged one ({reason:.200}): export it again")
