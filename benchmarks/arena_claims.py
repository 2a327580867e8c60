"""Published claims, and what of a cell's results would confirm them.

Every claim is one that a paper or a rerun makes of its own data and encoders; its numbers are cited, and never compared
with ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

ANY = "any method"


class Claim(NamedTuple):
    """A published claim.

    Attributes:
      source: who makes it.
      claim: in a sentence.
      method: that it is about, by our name; ANY: about every method but the references.
      reference: that it is compared with.
      measure: by which.
      expected: the findings that confirm it; the opposite contradicts it, and what is undecided says nothing, unless
        it is among those expected.
    """

    source: str
    claim: str
    method: str
    reference: str
    measure: str
    expected: tuple[str, ...]


RERUN = "MCR's rerun, arXiv 2411.07335, table 1"
CLAIMS = (
    Claim(
        f"{RERUN}; SimBaMM, arXiv 2512.22991",
        "Most balanced or complex methods do not beat an ensemble of uni-modal models.",
        ANY,
        "ume",
        "complete",
        ("undecided", "worse"),
    ),
    Claim(
        RERUN,
        "Joint late fusion is below the ensemble (AVE 66.7 against 70.5, CREMA-D 62.6 against 71.7).",
        "late_fusion",
        "ume",
        "complete",
        ("worse",),
    ),
    Claim(
        RERUN,
        "MMPareto is above the ensemble on AVE (73.0 against 70.5), and below it on CREMA-D (69.0 against 71.7).",
        "mmpareto",
        "ume",
        "complete",
        ("better",),
    ),
    Claim(
        RERUN,
        "Uni-modal encoders, frozen or tuned on, are above the ensemble (AVE 72.2 and 72.5 against 70.5).",
        "ume_mma",
        "ume",
        "complete",
        ("better",),
    ),
    Claim(
        "a later note on QMF (ICML 2023) and PDF (ICML 2024)",
        "Weighting by confidence is below the plain sum.",
        "qmf",
        "ume",
        "complete",
        ("worse",),
    ),
    Claim(
        "TLP, arXiv 2609.02039",
        "A bias per class and pattern, fitted without labels, closes much of the gap (MM-IMDb, 44.8 to 53.1).",
        "tlp",
        "ume_mma",
        "mean_over_patterns",
        ("better",),
    ),
)
OUTCOMES = ("confirmed", "contradicted", "undecided")


def held(claim: Claim, measures: Mapping[str, dict], references: tuple[str, ...]) -> dict[str, int]:
    """How many comparisons of a cell confirm, contradict and leave open a claim.

    Args:
      claim: one of CLAIMS.
      measures: of the cell, see `arena_results.measures`.
      references: whom a claim about any method is not about.
    """
    count = dict.fromkeys(OUTCOMES, 0)
    for one in measures.get(claim.measure, {}).get("comparisons", []):
        if _is_about(claim, one, references):
            count[_told(claim, one["finding"])] += 1
    return count


def _is_about(claim: Claim, one: Mapping[str, Any], references: tuple[str, ...]) -> bool:
    named = one["method"] not in references if claim.method == ANY else one["method"] == claim.method
    return named and one["reference"] == claim.reference


def _told(claim: Claim, finding: str) -> str:
    if finding in claim.expected:
        return "confirmed"
    return "undecided" if finding == "undecided" else "contradicted"


def what_is_left(claim: Claim, cells: Mapping[str, Mapping[str, dict]], references: tuple[str, ...]) -> str:
    """In words, over all cells that were run; by their names.

    Args:
      claim: one of CLAIMS.
      cells: the measures of each.
      references: as in `held`.
    """
    counts = {name: held(claim, measures, references) for name, measures in cells.items()}
    counts = {name: count for name, count in counts.items() if any(count.values())}
    if not counts:
        return "not run"
    total = sum(sum(count.values()) for count in counts.values())
    parts = [
        f"{word} in {number} of {total}"
        for word in OUTCOMES
        if (number := sum(count[word] for count in counts.values()))
    ]
    return f"{'; '.join(parts)} ({', '.join(counts)})"
