"""Encoders and head trained jointly, while modalities are dropped at random."""

LABEL = "augmentation alone"
SOURCE = "arXiv 2310.06383, without its uni-modal stage"
SWITCHES = {"unimodal": False, "fusion": True, "augment": True}
