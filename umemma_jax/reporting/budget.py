"""What each method of a comparison was given."""

from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import ABSENT, method_label


def budget(comparison: dict) -> Part:
    """A row for each method, from a comparison's `budget`."""
    rows = [[method_label(method), *_cells(given)] for method, given in comparison["budget"].items()]
    sentences = [
        "Seconds are of training and evaluation, the mean over the seeds, and FLOPs those of the forward pass on "
        "complete examples three times over: at most what was spent. A uni-modal stage is trained once for each seed, "
        "as the UME average, and its seconds are counted there alone; its epochs and FLOPs are every method's that "
        "begins with it."
    ]
    header = ["method", "trials", "settings", "uni-modal epochs", "fusion epochs", "s", "TFLOPs at most"]
    return Part("What each method was given", sentences, header, rows)


def _cells(given: dict) -> list[str]:
    settings = ", ".join(f"{name} {value:g}" for name, value in given["settings"].items())
    epochs = given["epochs"] or {}
    return [
        str(given["trials"] or ABSENT),
        settings or ABSENT,
        *(str(epochs.get(stage) or ABSENT) for stage in ("unimodal", "fusion")),
        ABSENT if given["seconds"] is None else f"{given['seconds']:,.1f}",
        ABSENT if given["flops"] is None else f"{given['flops'] / 1e12:,.3g}",
    ]
