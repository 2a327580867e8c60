"""What is predicted of an example: its class, any number of classes, or numbers."""

from dataclasses import dataclass

from umemma_jax import gaussian
from umemma_jax.data.info import Info
from umemma_jax.data.targets import Target

LOGITS, GAUSSIAN = "logits", "gaussian"  # what a head says: see `fusion.FAMILIES`


@dataclass(frozen=True)
class Task:
    """Classes or targets; one of the two is empty.

    Attributes:
      classes: K names.
      multi_label: whether an example may have any number of classes.
      targets: T of them.
    """

    classes: tuple[str, ...] = ()
    multi_label: bool = False
    targets: tuple[Target, ...] = ()

    @property
    def family(self) -> str:
        """What the model's heads say: logits of classes, or Gaussian evidence about targets."""
        return GAUSSIAN if self.targets else LOGITS

    @property
    def outputs(self) -> int:
        """How many numbers a head says of an example."""
        return gaussian.width(len(self.targets)) if self.targets else len(self.classes)


def task_of(info: Info) -> Task:
    """The task of a dataset."""
    return Task(info.classes, info.multi_label, info.targets)
