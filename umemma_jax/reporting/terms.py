"""How a report speaks of what is predicted: of classes, or of targets of regression."""

from typing import NamedTuple

from umemma_jax.evaluation import regression


class Terms(NamedTuple):
    """Keys of report.json, and words for what stands there.

    Attributes:
      error: key of a pattern's calibration error.
      error_label: its name.
      error_short: where there is little room.
      calibration_scores: key -> its name, and whether it is a fraction, shown in %.
      scale: key of what is fitted on validation examples.
      scale_label: its name.
      fitted: sentence on it, with {examples}.
      promise: sentence on conformal prediction, with {level} and {found}.
      size: key of how much a conformal answer holds.
      size_label: its name.
      confidence_label: axis of a reliability diagram, of what is meant to be.
      accuracy_label: of what is.
      reliability_title: of the diagram on the page.
      reliability_caption: under it.
    """

    error: str
    error_label: str
    error_short: str
    calibration_scores: dict[str, tuple[str, bool]]
    scale: str
    scale_label: str
    fitted: str
    promise: str
    size: str
    size_label: str
    confidence_label: str
    accuracy_label: str
    reliability_title: str
    reliability_caption: str


CLASSES = Terms(
    error="ece_equal_mass",
    error_label="ECE",
    error_short="ECE",
    calibration_scores={
        "nll": ("NLL", False),
        "brier": ("Brier", False),
        "ece": ("ECE equal width, %", True),
        "ece_equal_mass": ("ECE equal mass, %", True),
    },
    scale="temperature",
    scale_label="temperature",
    fitted="Temperatures, one per pattern, are fitted on {examples:,} validation examples.",
    promise="Sets meant to hold the true class {level} % of the time hold it {found} % of the time, by pattern.",
    size="size",
    size_label="set size",
    confidence_label="confidence, %",
    accuracy_label="true, %",
    reliability_title="Is its confidence right?",
    reliability_caption="On the dotted line confidence is right. Bins of equally many examples.",
)
TARGETS = Terms(
    error="calibration_error",
    error_label="calibration error",
    error_short="error",
    calibration_scores={"nll": ("NLL", False), "calibration_error": ("calibration error, %", True)},
    scale="scale",
    scale_label="sigma scale",
    fitted="Standard deviations are scaled, by a factor per pattern, on {examples:,} validation examples.",
    promise="Intervals meant to hold the target {level} % of the time hold it {found} % of the time, by pattern.",
    size="width",
    size_label="mean width",
    confidence_label="level of the interval, %",
    accuracy_label="inside, %",
    reliability_title="Are its standard deviations right?",
    reliability_caption="How many targets lie in central intervals of each level: on the dotted line as many as meant.",
)


def is_regression(results: dict) -> bool:
    """Whether results, or a comparison of such, are of targets."""
    return results["metric"] == regression.PRIMARY


def terms(results: dict) -> Terms:
    """Those of some results."""
    return TARGETS if is_regression(results) else CLASSES
