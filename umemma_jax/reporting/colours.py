"""Colours of figures and page: Okabe and Ito's, which colour-blind readers can tell apart, and greys."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#222222"
QUIET = "#666666"
GRID = "#E6E6E6"
PALE = "#BBD7EA"  # the palette's first


def nth_colour(number: int) -> str:
    """The palette's colour of that number; it begins again where it ends."""
    return PALETTE[number % len(PALETTE)]
