"""Encoders and head trained jointly, all modalities there."""

LABEL = "late fusion"
SOURCE = "the joint baseline, e.g. of arXiv 2305.01233"
SWITCHES = {"unimodal": False, "fusion": True, "augment": False}
