"""The MNIST files in a folder: images and labels of both splits."""

from pathlib import Path

import numpy as np

from umemma_jax.data_prep.raw.idx import read_idx
from umemma_jax.errors import UserError

CLASSES = 10
IMAGE_SHAPE = (28, 28)
FILES = {  # split -> images, labels
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_mnist(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the four files, each as `<name>.gz` or unpacked.

    Returns:
      split -> (images uint8 [N, 28, 28], labels uint8 [N]).

    Raises:
      UserError: files are missing, damaged, or do not belong together.
    """
    found = {name: _find(folder, name) for names in FILES.values() for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise UserError(
            f"{folder}: no {', '.join(missing)} (.gz or unpacked): point --mnist at the folder with MNIST's four files"
        )
    splits = {}
    for split, (images_name, labels_name) in FILES.items():
        images = read_idx(found[images_name], rank=3)
        labels = read_idx(found[labels_name], rank=1)
        if len(images) != len(labels):
            raise UserError(
                f"{found[images_name]}: {len(images)} images, but {len(labels)} labels in {labels_name}: "
                "bring two files of the same download"
            )
        if images.shape[1:] != IMAGE_SHAPE:
            height, width = images.shape[1:]
            raise UserError(
                f"{found[images_name]}: images of {height}x{width} instead of 28x28: bring MNIST's own file"
            )
        if labels.size and labels.max() >= CLASSES:
            raise UserError(f"{found[labels_name]}: label {labels.max()} is no digit: bring MNIST's own file")
        splits[split] = images, labels
    return splits


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
