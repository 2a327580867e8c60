"""What the modalities know of the label, together and alone: predictive V-information in nats (Xu et al. 2020).

The V-entropy H_V(Y|S) is the lowest NLL that models of a family V reach from the modalities S; the mean calibrated NLL
of the model under the pattern S, on examples that it was not fitted on, estimates it from above. H_V(Y), of no
modality, is the NLL of the class prior. All entropies must be means over the same examples: those that have every
modality. Of multi-label data the NLL is a mean over the K decisions of an example, and so is all information.

Functions take the entropies as a mapping from sets of modalities, the empty one and the complete one among them. An
undefined entropy, NaN, makes what depends on it NaN. Estimates may be negative where the truth cannot be.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Entropies = Mapping[frozenset[str], float]


def complementary(entropy: Entropies, modalities: Sequence[str]) -> dict[str, float]:
    """What each modality adds to all others: H_V(Y|rest) - H_V(Y|all), the paper's G = I(m; Y | rest), in nats."""
    everything = frozenset(modalities)
    return {name: entropy[everything - {name}] - entropy[everything] for name in modalities}


def redundancy(entropy: Entropies, modalities: Sequence[str]) -> float:
    """The information of the single modalities, added up, less that of all together, in nats.

    For two modalities this is I(X;Y) + I(Z;Y) - I(X,Z;Y): the redundancy less the synergy of a partial information
    decomposition (Williams and Beer 2010), which three numbers cannot tell apart. Above 0 modalities mostly repeat each
    other; below 0 they tell more together than each for itself. For more than two it is the whole-minus-sum synergy
    (Griffith and Koch 2014) with its sign turned: what two modalities share counts once, what three share twice.
    """
    alone = sum(_information(entropy, frozenset([name])) for name in modalities)
    return alone - _information(entropy, frozenset(modalities))


def complementary_share(entropy: Entropies, modalities: Sequence[str]) -> dict[str, float]:
    """The share of all information, H_V(Y) - H_V(Y|all), that is lost with each modality; NaN where there is none."""
    total = _information(entropy, frozenset(modalities))
    return {name: added / total if total > 0 else np.nan for name, added in complementary(entropy, modalities).items()}


def bayes_error_at_most(entropy: float) -> float:
    """1 - exp(-H): the Bayes error of what has the conditional entropy H, in nats, is this at most.

    P_e = 1 - E[max_y p(y|s)] <= 1 - E[exp(-H(Y|S=s))] <= 1 - exp(-H(Y|S)), with Jensen's inequality. The bound grows
    with H, so that an upper bound on H, as a V-entropy is, bounds P_e from above all the same. Fano's inequality bounds
    P_e from below, and would need a lower bound on H: it does not follow from a V-entropy. Multi-label, with H as a
    mean over the decisions, it bounds their mean error, the Hamming loss.
    """
    return 1 - np.exp(-entropy)


def squared_error_gap_at_most(complementary: float, half_range: float) -> float:
    """2 c^2 G: the mean squared error of the best predictor grows by this at most when G nats are lost.

    Of a target within c to both sides of some value. The growth is E[(E[y|x,z] - E[y|x])^2]. Two means differ by c
    times the L1 distance of their distributions at most, and that by sqrt(2 KL) (Pinsker); the mean of
    KL(p(y|x,z) || p(y|x)) is G = I(z; y | x).
    """
    return 2 * half_range**2 * max(complementary, 0.0)


def _information(entropy: Entropies, kept: frozenset[str]) -> float:
    return entropy[frozenset()] - entropy[kept]
