"""Results as an evaluation returns them, with numbers of one's choice; `analysed` adds what says why and how sure."""

import itertools
import math

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


def six_modalities():
    """63 patterns; each modality that is lost costs a little more than the one before."""
    modalities = tuple(f"view_{number}" for number in range(1, 7))
    patterns = {}
    for size in range(6, 0, -1):
        for kept in itertools.combinations(range(6), size):
            lost = sum(number + 1 for number in range(6) if number not in kept)
            patterns["+".join(modalities[number] for number in kept)] = 0.985 - 0.0008 * lost**2
    ceilings = {m: patterns[m] - 0.01 for m in modalities}
    return example_results(patterns, ceilings, modalities, examples=2000)


def analysed(results, classes=10):
    """The same results with all further keys: intervals, calibration, information, maps of two rates, cost.

    A number follows from the headline metric alone: an interval is 2 points wide, the NLL grows with the errors.
    What builds on a metric that is None is None.
    """
    tuned = "tuned_macro_f1"
    complete = "+".join(results["modalities"])
    headline = tuned if tuned in results["patterns"][complete] else results["metric"]
    values = {pattern: scores[headline] for pattern, scores in results["patterns"].items()}
    ceilings = {modality: scores[headline] for modality, scores in results["ceilings"].items()}
    ensembles = {}
    for pattern in (pattern for pattern in values if ceilings and "+" in pattern):
        ensembles[pattern] = {
            name: _add(value, -0.004) if name != "examples" else value
            for name, value in results["patterns"][pattern].items()
        }
    bounds = {
        "patterns": {pattern: _interval(value) for pattern, value in values.items()},
        "ceilings": {modality: _interval(value) for modality, value in ceilings.items()},
        "ensembles": {pattern: _interval(scores[headline]) for pattern, scores in ensembles.items()},
        "lost": {p: _interval(_minus(values[complete], v)) for p, v in values.items() if p != complete},
        "to_ceiling": {},
    }
    if ceilings:
        hardest = {pattern: _hardest(pattern, ceilings, ensembles, headline) for pattern in values}
        bounds["to_ceiling"] = {p: _interval(_minus(v, hardest[p][1])) for p, v in values.items()}
    else:
        hardest = {}
    cells = [
        {
            **cell,
            "interval": _interval(cell["mean"][headline]),
            "complete": 1 - sum(cell["rates"].values()),
            "nll": _nll(cell["mean"][headline], classes),
        }
        for cell in results["missing_rates"]
    ]
    return results | {
        "headline": headline,
        "prior": "validation examples",
        "ensembles": ensembles,
        "missing_rates": cells,
        "uncertainty": {"level": 0.95, "resamples": 1000, "seed": 0, **bounds},
        "calibration": {
            "examples": 500,
            "patterns": {p: _calibration(v, classes) for p, v in values.items()},
            "ceilings": dict.fromkeys(ceilings, 1.2),
            "ensembles": dict.fromkeys(ensembles, 1.3),
        },
        "conformal": {"alpha": 0.1, "patterns": {p: _conformal(v) for p, v in values.items()}},
        "worst_class": {
            pattern: {"class": "seven", "value": _add(value, -0.08), "examples": 41}
            for pattern, value in values.items()
        },
        "robustness": _robustness(values, complete, hardest, results),
        "shapley": _shapley(values, complete, results, headline),
        "information": _information(values, complete, results, classes),
        "rate_maps": [
            _rate_map(values, pair, results["modalities"]) for pair in itertools.combinations(results["modalities"], 2)
        ],
        "cost": {
            p: {"flops": 4.1e6 * (1 + p.count("+")), "milliseconds": 1.3 * (1 + p.count("+")), "batch_size": 64}
            for p in values
        },
    }


def uncalibrated(results):
    """The same analysed results as they are without validation examples."""
    calibration = {
        pattern: {**entry, "temperature": None, "after": None}
        for pattern, entry in results["calibration"]["patterns"].items()
    }
    kept = {key: value for key, value in results.items() if key != "conformal"}
    temperatures = {table: dict.fromkeys(results["calibration"][table]) for table in ("ceilings", "ensembles")}
    return kept | {"calibration": {"examples": 0, "patterns": calibration, **temperatures}}


def _add(value, other):
    return None if value is None or other is None else value + other


def _minus(value, other):
    return _add(value, None if other is None else -other)


def _interval(value):
    return [None, None] if value is None else [value - 0.01, min(1.0, value + 0.01)]


def _nll(accuracy, classes):
    """That of a model which is as sure as it is right."""
    if accuracy is None:
        return None
    right = min(max(accuracy, 1e-3), 1 - 1e-3)
    return -right * math.log(right) - (1 - right) * math.log((1 - right) / (classes - 1))


def _calibration(value, classes):
    before = dict.fromkeys(("nll", "brier", "ece", "ece_equal_mass"))
    after, reliability, aurc = before, {"confidence": [], "accuracy": [], "examples": []}, None
    reliability_before = reliability
    if value is not None:
        error, nll = 1 - value, _nll(value, classes)
        before = {"nll": nll + 0.1, "brier": 1.7 * error, "ece": 0.01 + error / 4, "ece_equal_mass": 0.012 + error / 4}
        after = {"nll": nll, "brier": 1.6 * error, "ece": 0.004 + error / 20, "ece_equal_mass": 0.005 + error / 20}
        confidence = [1 - 2 * error * ((15 - number) / 15) ** 2 for number in range(1, 16)]
        accuracy = [min(1.0, max(0.0, c + 0.02 * math.sin(7 * c))) for c in confidence]
        reliability = {"confidence": confidence, "accuracy": accuracy, "examples": [30] * 15}
        reliability_before = {**reliability, "accuracy": [max(0.0, value - error / 4) for value in accuracy]}
        aurc = error / 5
    return {
        "temperature": None if value is None else 1.37,
        "before": before,
        "after": after,
        "aurc": aurc,
        "reliability_before": reliability_before,
        "reliability": reliability,
    }


def _conformal(value):
    if value is None:
        return {"quantile": None, "coverage": None, "size": None}
    return {"quantile": 0.9, "coverage": 0.9 + 0.01 * math.sin(50 * value), "size": 1 + 5 * (1 - value)}


def _hardest(pattern, ceilings, ensembles, headline):
    """The best uni-modal model of what is left, or their ensemble: its name and value."""
    found = {m: ceilings[m] for m in pattern.split("+")}
    if pattern in ensembles:
        found["ensemble"] = ensembles[pattern][headline]
    defined = {model: value for model, value in found.items() if value is not None}
    best = max(defined, key=defined.get, default=next(iter(found)))
    return best, found[best]


def _robustness(values, complete, hardest, results):
    defined = {pattern: value for pattern, value in values.items() if value is not None}
    worst = min(defined, key=defined.get, default=None)
    mean = sum(defined.values()) / len(defined) if len(defined) == len(values) else None
    ceilings = {
        pattern: {"model": model, "value": value, "pattern": values[pattern], "examples": results["examples"]}
        for pattern, (model, value) in hardest.items()
    }
    return {
        "worst_pattern": {"pattern": worst, "value": defined.get(worst)},
        "uniform_mean": mean,
        "deployment": {"weights": dict.fromkeys(values, 1 / len(values)), "mean": mean},
        "area": {kind: None if mean is None else 0.97 for kind in (*results["modalities"], "mixed")},
        "ceilings": ceilings,
        "share_of_ceiling": {
            p: None if None in (entry["value"], entry["pattern"]) else entry["pattern"] / (entry["value"] or 1.0)
            for p, entry in ceilings.items()
        },
        "lost": {p: _minus(values[complete], v) for p, v in values.items() if p != complete},
        "counter_intuitive": {
            "rate": None if mean is None else 0.013,
            "pairs": {f"{p} < {complete}": None if values[p] is None else 0.013 for p in values if p != complete},
        },
    }


def _shapley(values, complete, results, headline):
    """In proportion to the modalities' values alone, which sums up as it must; None where one is not defined."""
    empty = 0.1
    alone = {modality: values[modality] for modality in results["modalities"]}
    shares = dict.fromkeys(alone)
    if None not in (values[complete], *alone.values()):
        total = sum(alone.values()) or 1.0
        shares = {modality: value / total * (values[complete] - empty) for modality, value in alone.items()}
    return {"metric": headline, "empty": empty, "values": shares, "examples": results["examples"]}


def _information(values, complete, results, classes):
    modalities = results["modalities"]
    entropy = {"": math.log(classes)} | {pattern: _nll(value, classes) for pattern, value in values.items()}
    rest = {m: "+".join(other for other in modalities if other != m) for m in modalities}
    complementary = {m: _minus(entropy[rest[m]], entropy[complete]) for m in modalities}
    known = _minus(entropy[""], entropy[complete])
    alone = [_minus(entropy[""], entropy[modality]) for modality in modalities]
    redundancy = None if None in (known, *alone) else sum(alone) - known
    return {
        "entropy": entropy,
        "complementary": complementary,
        "redundancy": redundancy,
        "complementary_share": {m: None if None in (v, known) else v / known for m, v in complementary.items()},
        "bayes_error_at_most": {p: None if entropy[p] is None else 1 - math.exp(-entropy[p]) for p in values},
        "examples": results["examples"],
    }


def _rate_map(values, pair, modalities):
    """The mean over what the two are left with; who would lose all that there is keeps the first."""
    first, second = pair
    rates = [0.0, 0.25, 0.5, 0.75, 1.0]

    def value(lost):
        left = [modality for modality in modalities if modality not in lost] or [first]
        return values["+".join(left)]

    def cell(a, b):
        chances = {(): (1 - a) * (1 - b), (first,): a * (1 - b), (second,): (1 - a) * b, pair: a * b}
        found = [(chance, value(lost)) for lost, chance in chances.items() if chance]
        return None if None in [v for _, v in found] else sum(chance * v for chance, v in found)

    return {"modalities": list(pair), "rates": rates, "values": [[cell(a, b) for b in rates] for a in rates]}
