"""Raw files of public datasets, from where tensorflow-datasets has them.

Only its registry is used, that is addresses and SHA-256 sums: without TensorFlow it can neither unpack archives nor
encode images, and without a network its own download manager retries for minutes.
"""

import hashlib
import http.client
import math
import os
import tarfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from umemma_jax.data.unfinished import UnfinishedFolder, clear_up
from umemma_jax.data_prep.build.console import progress
from umemma_jax.errors import UserError

_BLOCK = 1 << 20
_TIMEOUT = 30  # seconds without an answer
_GRACE, _SLOWEST = 60.0, 20_000  # s after which a file must have come at so many bytes per second


@dataclass(frozen=True)
class RemoteFile:
    """A file that tensorflow-datasets knows."""

    url: str
    size: int
    sha256: str
    name: str


def registered_files(dataset: str) -> list[RemoteFile]:
    """The files that make up a tensorflow-datasets dataset."""
    import tensorflow_datasets as tfds  # slow, and needed only without local files

    # Old datasets have their sums in one folder, newer ones beside their code. (`builder_cls(...).url_infos` would
    # know, but needs importlib_resources, which tensorflow-datasets 4.9.10 does not declare.)
    places = [f"datasets/{dataset}/checksums.tsv", f"url_checksums/{dataset}.txt"]
    registry = next(path for path in map(tfds.core.tfds_path, places) if path.exists())
    files = []
    for line in registry.read_text().splitlines():
        url, size, sha256, name = line.split("\t")
        files.append(RemoteFile(url, int(size), sha256, name))
    return files


def fetch(files: list[RemoteFile], folder: Path, otherwise: str) -> list[Path]:
    """Downloads files that are not yet in a folder, whole and right, and checks their sums.

    Args:
      files: what to download.
      folder: where to; made if absent.
      otherwise: what the user can do without a network, for the error.

    Returns:
      Their paths in the folder.

    Raises:
      UserError: there is no network, the server does not answer, or too slowly, a length or sum is wrong, or the disk
        is full.
    """
    paths = [folder / file.name for file in files]
    for file, path in zip(files, paths, strict=True):
        if path.is_file() and path.stat().st_size == file.size and _sha256(path) == file.sha256:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _download(file, path)
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{file.url}: cannot be downloaded to {folder} ({reason}): {otherwise}") from error
    return paths


def unpack(archive: Path) -> Path:
    """Unpacks `<name>.tar.gz` beside itself, unless done before; returns the folder `<name>` that is in it.

    Raises:
      UserError: the archive is damaged or has no such folder, or the disk is full.
    """
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    if not folder.is_dir():
        try:
            clear_up(folder)
            with UnfinishedFolder(folder) as scratch, tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
                os.replace(scratch / folder.name, folder)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UserError(f"{archive}: cannot be unpacked ({error}): remove it and try again") from error
    return folder


def _download(file: RemoteFile, path: Path) -> None:
    """Downloads to a temporary name; renames when complete and right."""
    partial = path.with_name(f"{path.name}.partial")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as response, partial.open("wb") as output:
            blocks = _blocks(response, file.size)
            for block in progress(blocks, f"{file.name} (MiB)", math.ceil(file.size / _BLOCK)):
                digest.update(block)
                output.write(block)
        if digest.hexdigest() != file.sha256:
            raise OSError("its SHA-256 sum is not the one that tensorflow-datasets has")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _blocks(response: BinaryIO, size: int) -> Iterator[bytes]:
    """The body, a MiB at a time. Raises OSError if it is longer than `size`, or comes too slowly."""
    start, received, block = time.monotonic(), 0, bytearray()
    while part := response.read1(_BLOCK - len(block)):
        received += len(part)
        seconds = time.monotonic() - start
        if received > size:
            raise OSError(f"longer than the {size} bytes that tensorflow-datasets has")
        if seconds > _GRACE and received < seconds * _SLOWEST:
            raise TimeoutError(f"only {received} bytes in {seconds:.0f} s")
        block += part
        if len(block) == _BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
