"""Any dataset of tensorflow-datasets, read through its data source, without TensorFlow.

python -m data_prep.tfds --dataset=NAME --image=image --text=caption --label=label --out=DIR

NAME is one of https://www.tensorflow.org/datasets/catalog, or the folder of a dataset on disk. Each of --image,
--audio, --text and --tabular names a feature (`outer/inner` for a nested one) and makes a modality, which is called as
its kind, or NAME with --image=NAME=FEATURE. Splits are those called train, validation and test, unless --train, --val
or --test say otherwise, in the notation of tensorflow-datasets: --train=train[:90%] --val=train[90%:].

What cannot be done without TensorFlow: reading datasets that are stored as TFRecord instead of ArrayRecord, or that
have features of type Audio (sound must be a tensor of samples), and downloading some of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import tensorflow_datasets as tfds

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.assemble import labelled, trained_classes, unlabelled, write_dataset
from umemma_jax.data_prep.build.labels import sorted_classes
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.splits import SPLIT_NAMES, SPLITS
from umemma_jax.data_prep.raw.columns import Column, add_column_arguments, check_names
from umemma_jax.data_prep.raw.features import KINDS, ClassNames, Reader, Record, open_source, read_record
from umemma_jax.errors import UserError

NO_LABEL = "record without label (dropped)"


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    dataset: str,
    modalities: Sequence[Column] | None,
    label: str,
    data_dir: str | None = None,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    rate: int = 16000,
    size: int = 256,
    max_pixels: int | None = None,
    processes: int | str = 1,
    max_unreadable: float = console.MAX_UNREADABLE,
    drop_unseen: bool = False,
) -> None:
    """Prepares the dataset.

    Args:
      out: folder to make.
      seed: for provenance only, nothing is random.
      overwrite: whether `out` may be replaced.
      dataset: name in the catalogue, or folder with `dataset_info.json`.
      modalities: what to take from it, in the order that the prepared dataset shall have.
      label: feature of the label or labels.
      data_dir: where tensorflow-datasets keeps its datasets; None means its own default.
      train: split to take, in tensorflow-datasets' notation; None means the one of that name.
      val: likewise.
      test: likewise.
      rate: Hz of sound, which is stored as it is.
      size: images keep at most so many pixels on their shorter side.
      max_pixels: files of more are refused; None: as `umemma_jax.data_prep.raw.limits` says.
      processes: how many read images and sound; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the images and sounds that may be unreadable.
      drop_unseen: whether examples of classes that training never sees are dropped.

    Raises:
      UserError: the dataset cannot be read without TensorFlow, features or splits are not there, or `out` is in use.
    """
    check_names(modalities)
    builder = _open(dataset, data_dir)
    features, directory = builder.info.features, str(builder.data_dir)
    readers: dict[str, Reader] = {
        column.name: KINDS[column.kind](features, column.columns, size, rate, max_pixels) for column in modalities
    }
    class_names = ClassNames(features, label)
    splits = _choose_splits(builder, {"train": train, "val": val, "test": test})

    report = Report()
    examples, labels = [], []
    for split, chosen in splits.items():
        for record in _records(directory, chosen, split):
            names = class_names.of(record)
            if names is None:
                report.add(NO_LABEL, f"record {record.row} of {chosen}")
                continue
            values = {name: reader.take(record) for name, reader in readers.items()}
            examples.append(unlabelled(split, f"{split}-{record.row:07d}", values))
            labels.append(names)
    classes = class_names.known or sorted_classes({name for names in labels for name in names})
    examples = labelled(examples, labels, classes, class_names.multi_label)
    examples, classes = trained_classes(
        examples, classes, lambda example: f"{builder.name}, record {example.id}", report, drop_unseen
    )

    writer = DatasetWriter(
        out,
        name=builder.name,
        description=f"{builder.info.full_name} of tensorflow-datasets.",
        classes=classes,
        modalities={name: reader.modality for name, reader in readers.items()},
        multi_label=class_names.multi_label,
        source={
            "command": "data_prep.tfds",
            "dataset": builder.info.full_name,
            "modalities": [asdict(column) for column in modalities],
            "label": label,
            "splits": splits,
            "size": size,
            "max_pixels": max_pixels,
        },
        overwrite=overwrite,
    )
    write_dataset(writer, out, examples, report, processes, max_unreadable)


def _open(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The dataset, downloaded and prepared if need be."""
    where = f"--dataset={dataset}"
    try:
        if (Path(dataset) / "dataset_info.json").is_file():
            builder = tfds.builder_from_directory(dataset)
        else:
            builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f"{where}: neither a dataset of tensorflow-datasets nor a folder with dataset_info.json: check the name"
        ) from error
    except ImportError as error:
        raise UserError(
            f"{where}: needs {error.name or 'TensorFlow'}, which is not installed: install it, or prepare the dataset "
            "elsewhere, in the file format array_record, and give its folder"
        ) from error
    except Exception as error:  # whatever a download or the dataset's own code can raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{where}: cannot be opened ({type(error).__name__}: {reason}): check the name, or give a folder with "
            "dataset_info.json"
        ) from error
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{where}: stored as {builder.info.file_format.value}, which needs TensorFlow: convert it to array_record "
            "with python -m tensorflow_datasets.scripts.convert_format"
        )
    return builder


def _choose_splits(builder: tfds.core.DatasetBuilder, given: Mapping[str, str | None]) -> dict[str, str]:
    """Split of the prepared dataset -> what to read, in the order of `SPLITS`."""
    found = {SPLIT_NAMES[name]: name for name in builder.info.splits if name in SPLIT_NAMES}
    chosen = {split: given[split] or found.get(split) for split in SPLITS}
    if not chosen["train"]:
        raise UserError(f"no split 'train'; there are: {', '.join(builder.info.splits)}: choose one with --train")
    return {split: name for split, name in chosen.items() if name}


def _records(directory: str, chosen: str, split: str) -> Iterator[Record]:
    try:
        count = len(open_source(directory, chosen))
    except Exception as error:  # tensorflow-datasets has its own parser of splits
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--{split}={chosen}: no such split ({reason}): choose another one") from error
    for row in console.progress(range(count), f"reading {split}", count):
        yield read_record(directory, chosen, row)


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.tfds", "Any dataset of tensorflow-datasets.")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="in the catalogue, or its folder on disk")
    parser.add_argument("--data-dir", metavar="DIR", help="where tensorflow-datasets keeps its datasets")
    add_column_arguments(parser)
    parser.add_argument("--label", required=True, metavar="FEATURE", help="the label, or a sequence of labels")
    for split in SPLITS:
        parser.add_argument(f"--{split}", metavar="SPLIT", help=f"what to take as {split}, e.g. train[:80%%]")
    console.add_image_arguments(parser)
    console.add_drop_unseen_argument(parser)
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
