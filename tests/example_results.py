"""Results as an evaluation returns them, with numbers of one's choice."""

TWO = ("image", "audio")
ROBUST = {"image+audio": 0.993, "image": 0.949, "audio": 0.970}
COLLAPSED = {"image+audio": 0.973, "image": 0.36, "audio": 0.933}
CEILINGS = {"image": 0.951, "audio": 0.972}


def example_results(patterns=ROBUST, ceilings=CEILINGS, modalities=TWO, method="ume_mma", examples=450, seed=0):
    """Accuracy falls on a straight line from complete to one modality lost; macro-F1 is a point lower."""

    def scores(accuracy):
        return {"accuracy": accuracy, "macro_f1": accuracy - 0.01}

    complete = "+".join(modalities)
    lost = {kind: patterns["+".join(m for m in modalities if m != kind)] for kind in modalities}
    lost["mixed"] = sum(lost.values()) / len(lost)
    cells = []
    for kind, end in lost.items():
        for rate in (0.0, 0.5, 1.0):
            mean = (1 - rate) * patterns[complete] + rate * end
            std = 0.01 * rate * (1 - rate)
            share = {m: rate / len(modalities) if kind == "mixed" else rate * (m == kind) for m in modalities}
            cells.append(
                {
                    "kind": kind,
                    "rate": rate,
                    "rates": share,
                    "seeds": 5,
                    "mean": scores(mean),
                    "std": {"accuracy": std, "macro_f1": std},
                    "table_sha256": "00" * 32,
                }
            )
    return {
        "dataset": "av_mnist_small",
        "split": "test",
        "examples": examples,
        "metric": "accuracy",
        "modalities": list(modalities),
        "method": method,
        "seed": seed,
        "stand_in": "token",
        "patterns": {name: scores(value) | {"examples": examples} for name, value in patterns.items()},
        "ceilings": {name: scores(value) for name, value in ceilings.items()},
        "missing_rates": cells,
        "definitions": {"missing rate": "7 of 10 examples lose the modality at 70 %."},
        "naturally_missing": dict.fromkeys(modalities, 0),
        "timing": {
            "encoder_pass_seconds": 0.4123,
            "report_seconds": 0.031,
            "examples_per_second": 1092.4,
            "compilations": {"encode": 1},
        },
        "versions": {"jax": "0.10.2"},
        "command": "python main.py --mode=eval",
    }


def three_modalities():
    """Seven patterns."""
    patterns = {
        "image+audio+text": 0.962,
        "image+audio": 0.93,
        "image+text": 0.948,
        "audio+text": 0.951,
        "image": 0.81,
        "audio": 0.78,
        "text": 0.90,
    }
    ceilings = {"image": 0.815, "audio": 0.79, "text": 0.905}
    return example_results(patterns, ceilings, ("image", "audio", "text"))


def audio_undefined(seed=0):
    """No test example has audio, so that nothing is known of it alone; no validation example had it either."""
    results = example_results(seed=seed)
    nothing = {"accuracy": None, "macro_f1": None}
    results["patterns"]["audio"] = nothing | {"examples": 0}
    results["ceilings"]["audio"] = nothing
    return results | {"not_validated": {"ceilings": ["audio"], "thresholds": ["audio"]}}


def all_undefined(seed=0):
    """No test example has any class, so that no number is known."""
    results = audio_undefined(seed)
    for table in (results["patterns"], results["ceilings"]):
        for name, values in table.items():
            table[name] = {**values, "accuracy": None, "macro_f1": None}
    for cell in results["missing_rates"]:
        cell["mean"] = cell["std"] = {"accuracy": None, "macro_f1": None}
    return results


def multi_label(ceilings=CEILINGS, seed=0):
    """Two modalities: micro-F1 is 2 points above macro-F1 and so on, at the tuned threshold a point more."""
    results = example_results(ceilings=ceilings, seed=seed)
    above = {"macro_f1": 0, "micro_f1": 2, "weighted_f1": 1, "samples_f1": -1}

    def scores(values):
        found = {name: values["accuracy"] - 0.3 + points / 100 for name, points in above.items()}
        return found | {f"tuned_{name}": value + 0.01 for name, value in found.items()}

    for table in (results["patterns"], results["ceilings"]):
        for name, values in table.items():
            kept = {"examples": values["examples"]} if "examples" in values else {}
            table[name] = scores(values) | {"mAP": values["accuracy"] - 0.25} | kept
    for cell in results["missing_rates"]:
        cell["mean"] = scores(cell["mean"])
        cell["std"] = dict.fromkeys(cell["mean"], cell["std"]["accuracy"])
    thresholds = {"patterns": {"image+audio": [0.31, 0.5], "image": [0.4, 0.3], "audio": [0.25, 0.1]}}
    thresholds |= {"ceilings": dict(zip(ceilings, ([0.45, 0.4], [0.2, 0.3]), strict=False)), "ensembles": {}}
    return results | {"metric": "macro_f1", "thresholds": thresholds}
