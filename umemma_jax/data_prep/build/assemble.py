"""From a list of raw examples to a prepared dataset: files are converted, what cannot be read is left out and said."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from umemma_jax.data.dataset import TRAIN, DatasetWriter, open_dataset
from umemma_jax.data.tokenizer import TOKENIZER
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.parallel import CHUNK, run_tasks, work_folder
from umemma_jax.data_prep.build.prep_report import FILE_NAME, UNREADABLE, Report
from umemma_jax.data_prep.build.results import Failure, Noted, Result
from umemma_jax.data_prep.build.tasks import Task
from umemma_jax.data_prep.build.vocabulary import tokenizer_file
from umemma_jax.errors import UserError

UNSEEN = "example of a class that is never seen in training (dropped)"
NOTHING_LEFT = "example without anything left (dropped)"


@dataclass(frozen=True)
class RawExample:
    """One example before its files are read.

    Attributes:
      split: its split.
      id: unique in the dataset.
      label: class index, or several: of one example, or of the seconds of a clip; or the values of targets; None where
        it is not known.
      tasks: modality -> how it is read; a modality that is in neither dict is missing. A task whose value is a dict
        gives several, and may stand under any name.
      values: modality -> value at hand.
      sample_weight: of the example in training; all of a split have one, or none has.
    """

    split: str
    id: str
    label: int | tuple[int, ...] | tuple[float, ...] | None
    tasks: Mapping[str, Task] = field(default_factory=dict)
    values: Mapping[str, str | np.ndarray] = field(default_factory=dict)
    sample_weight: float | None = None


def unlabelled(split: str, id: str, found: Mapping[str, Task | str | np.ndarray | None]) -> RawExample:
    """An example whose label is not known, or not yet, from what was found of each modality; None: it is missing."""
    values = {name: value for name, value in found.items() if isinstance(value, str | np.ndarray)}
    tasks = {name: value for name, value in found.items() if value is not None and name not in values}
    return RawExample(split, id, None, tasks, values)


def labelled(
    examples: Sequence[RawExample], names: Sequence[Collection[str]], classes: Sequence[str], multi_label: bool
) -> list[RawExample]:
    """The examples with their labels: class indices in ascending order, or the index where there is only one.

    Args:
      examples: N of them.
      names: of each one's classes; exactly one class unless `multi_label`.
      classes: of the dataset.
      multi_label: whether examples may have several classes, or none.
    """
    index = {name: position for position, name in enumerate(classes)}
    found = [tuple(sorted(index[name] for name in of_example)) for of_example in names]
    return [
        replace(example, label=label if multi_label else label[0])
        for example, label in zip(examples, found, strict=True)
    ]


def write_dataset(
    writer: DatasetWriter,
    out: str,
    examples: Sequence[RawExample],
    report: Report,
    processes: int | str,
    max_unreadable: float = console.MAX_UNREADABLE,
) -> None:
    """Reads the examples' files and writes everything, in order, and prints a summary.

    Beside the data come the report and, where there are texts, a tokenizer of their words.

    Args:
      writer: not entered yet.
      out: its folder.
      examples: what to write.
      report: what is noted so far; problems with files are added.
      processes: how many read files; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the files that may be unreadable.

    Raises:
      UserError: more files are unreadable, or something cannot be written.
    """
    with reading_files(writer, out, examples, report, processes, max_unreadable) as results:
        for example in console.progress(examples, "reading and writing", len(examples)):
            _write(writer, example, results, report)
        if texts := [text for example in examples if example.split == TRAIN for text in _texts(example)]:
            writer.add_file(TOKENIZER, tokenizer_file(texts))


@contextlib.contextmanager
def reading_files(
    writer: DatasetWriter,
    out: str,
    examples: Sequence[RawExample],
    report: Report,
    processes: int | str,
    max_unreadable: float,
    chunk: int = CHUNK,
) -> Iterator[Iterator[Result]]:
    """What all preparations do around the writing of examples; gives the results of their tasks, in order.

    At the end the report is written beside the data, and a summary printed. The arguments are those of
    `write_dataset`; whoever takes a result passes it through `content_of`, which counts the failures.

    Args:
      writer: entered here.
      out: its folder.
      examples: with the tasks.
      report: goes beside the data.
      processes: how many read files; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the tasks that may be in the report as unreadable.
      chunk: tasks that are handed to a process, and kept, together.

    Raises:
      UserError: more are, or something cannot be written.
    """
    tasks = [task for example in examples for task in example.tasks.values()]
    with work_folder(out) as folder, writer:
        with contextlib.closing(run_tasks(tasks, folder, processes, chunk=chunk)) as results:
            yield results
        if report.count(UNREADABLE) > max_unreadable * len(tasks):
            path = report.write(folder)
            raise UserError(
                f"{report.count(UNREADABLE)} of {len(tasks)} files are unreadable, more than "
                f"{100 * max_unreadable:g} %: they are listed in {path}; mend or remove them and run again"
            )
        writer.add_file(FILE_NAME, report.encoded())
    dataset = open_dataset(out)
    console.print_counts(dataset)
    console.print_present(dataset)
    report.print_summary(dataset.path / FILE_NAME)


def _texts(example: RawExample) -> list[str]:
    return [value for value in example.values.values() if isinstance(value, str)]


def content_of(task: Task, result: Result, report: Report) -> bytes | None:
    """What a task gave, None if it failed; what there is to say about it is added to the report."""
    if isinstance(result, Failure):
        report.add(UNREADABLE, f"{task}: {result.reason}")
        return None
    if isinstance(result, Noted):
        for kind, note in result.notes.items():
            report.add(kind, f"{task}: {note}")
        return result.data
    return result


def _write(writer: DatasetWriter, example: RawExample, results: Iterator[Result], report: Report) -> None:
    values = dict(example.values)
    # The tasks come first in the zip, so that no result is taken when they are at their end.
    for (name, task), result in zip(example.tasks.items(), results, strict=False):
        content = content_of(task, result, report)
        if content is not None:
            value = task.value(content)
            values |= value if isinstance(value, dict) else {name: value}
    if values:
        about = {"id": example.id, "label": example.label, "sample_weight": example.sample_weight}
        writer.write(example.split, **about, **values)
    else:
        report.add(NOTHING_LEFT, example.id)


def check_ids(examples: Sequence[RawExample], where: str) -> None:
    """Raises UserError if an id comes twice."""
    for id, times in Counter(example.id for example in examples).items():
        if times > 1:
            raise UserError(f"{where}: id {id!r} comes {times} times: give every example an id of its own")


def trained_classes(
    examples: Sequence[RawExample],
    classes: Sequence[str],
    where: Callable[[RawExample], str],
    report: Report,
    drop_unseen: bool,
) -> tuple[list[RawExample], list[str]]:
    """The examples and classes without those classes that are never seen in the train split.

    Args:
      examples: with labels.
      classes: of the dataset.
      where: says where an example comes from.
      report: gets the examples that are dropped.
      drop_unseen: whether examples of such a class are dropped; if not, there may be none.

    Raises:
      UserError: there are, or there is no example at all, or none of any class.
    """
    if not examples or not classes:
        raise UserError("the raw data give not a single example with a label: check what was given")
    trained = {label for example in examples if example.split == TRAIN for label in _labels(example)}
    if not trained:
        raise UserError(f"{where(examples[0])}: no example with a class is in the train split: add some")
    unseen = {label for example in examples for label in _labels(example)} - trained
    dropped = [example for example in examples if not unseen.isdisjoint(_labels(example))]
    if dropped and not drop_unseen:
        name = next(classes[label] for label in _labels(dropped[0]) if label in unseen)
        raise UserError(
            f"{where(dropped[0])}: class {name!r} is never seen in the train split: correct it, add training examples, "
            f"or drop the {len(dropped)} examples of such classes with --drop-unseen"
        )
    for example in dropped:
        names = ", ".join(repr(classes[label]) for label in _labels(example) if label in unseen)
        report.add(UNSEEN, f"{where(example)}: {names}")
    kept = [label for label in range(len(classes)) if label not in unseen]
    index = {label: position for position, label in enumerate(kept)}
    left = (example for example in examples if unseen.isdisjoint(_labels(example)))
    return [_relabelled(example, index) for example in left], [classes[label] for label in kept]


def _relabelled(example: RawExample, index: Mapping[int, int]) -> RawExample:
    label = example.label
    return replace(example, label=index[label] if isinstance(label, int) else tuple(index[x] for x in label))


def _labels(example: RawExample) -> tuple[int, ...]:
    return example.label if isinstance(example.label, tuple) else (example.label,)


def stratified(classes: Sequence[int], shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Draws which part each example belongs to, every class in proportion.

    Args:
      classes: class of each example, N of them.
      shares: of the parts but the first, which gets the rest and at least one of every class.
      rng: makes the draw.

    Returns:
      int64 [N], 0 for the first part.
    """
    classes = np.asarray(classes)
    parts = np.zeros(len(classes), np.int64)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))[1:]
        ends = np.rint(np.cumsum(shares) * (len(members) + 1)).astype(int)
        for part, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True), start=1):
            parts[members[start:end]] = part
    return parts
