"""Uni-modal training, then fusion while modalities are dropped at random."""

LABEL = "UME-MMA"
SOURCE = "arXiv 2310.06383"
SWITCHES = {"unimodal": True, "fusion": True, "augment": True}
REFERENCE = True
