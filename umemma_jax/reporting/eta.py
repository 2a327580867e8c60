"""What is said of examples that lost modalities for good, `config.missing.eta`."""

from umemma_jax.reporting.results import kind_label


def eta_cell(results: dict) -> dict:
    """The cell of test examples that the eta protocol asks for, where the results have `eta`."""
    if "rates" in results["eta"]:
        return results["unequal"]
    wanted = results["eta"]["kind"], results["eta"]["rate"]
    return next(cell for cell in results["missing_rates"] if (cell["kind"], cell["rate"]) == wanted)


def eta_label(eta: dict) -> str:
    """What was lost in training under the eta protocol, as a sentence without its end."""
    return f"{_lost_in_training(eta)} for good, by a seeded table{_given(eta)}"


def _lost_in_training(eta: dict) -> str:
    if "rates" in eta:
        shares = " and ".join(f"{100 * rate:.4g} % lost {modality}" for modality, rate in eta["rates"].items())
        return f"Protocol eta, unequal rates: of the training and validation examples {shares}, each by itself,"
    what = "one modality each, all in equal shares," if eta["kind"] == "mixed" else eta["kind"]
    return (
        f"Protocol eta = {100 * eta['rate']:.4g} %, {kind_label(eta['kind'])}: that share of the training and "
        f"validation examples lost {what}"
    )


def _given(eta: dict) -> str:
    if not eta.get("given"):
        return ""
    by = "class" if eta["given"] == "label" else f"whether there is {eta['given']}"
    return (
        f", by {by} from {1 - eta['spread']:.4g} to {1 + eta['spread']:.4g} times as often, in the test examples alike"
    )


def eta_of_all(comparison: dict) -> list[str]:
    """What a comparison says of the protocol, and where its numbers are; nothing without it."""
    if "eta" not in comparison:
        return []
    eta = comparison["eta"]
    if "rates" in eta:
        return [f"{eta_label(eta)}. The protocol's numbers are in the report of each run."]
    return [
        f"{eta_label(eta)}. The protocol's numbers are those at missing rate {100 * eta['rate']:.4g} %, "
        f"{kind_label(eta['kind'])}."
    ]
