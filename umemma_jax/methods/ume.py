"""The uni-modal ensemble: models that were trained apart, whose logits add up while the prior counts once."""

LABEL = "UME average"
SOURCE = "UME of arXiv 2305.01233, as a product of experts: Bayes' rule for modalities independent given the class"
SWITCHES = {"unimodal": True, "fusion": False, "augment": False}
REFERENCE = True
