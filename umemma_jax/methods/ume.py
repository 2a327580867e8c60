"""The uni-modal ensemble: the average of models that were trained apart."""

LABEL = "UME average"
SOURCE = "UME of arXiv 2305.01233"
SWITCHES = {"unimodal": True, "fusion": False, "augment": False}
