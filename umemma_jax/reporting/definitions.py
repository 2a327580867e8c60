"""What the words mean that stand in reports."""

from umemma_jax.reporting.terms import is_regression

DEFINITIONS = {
    "pattern": "Modalities given to the model; an example counts with what it has of them, and not at all where it "
    "has none of them.",
    "ceiling": "The uni-modal model of the first stage, evaluated on its modality alone. A pattern's ceiling is the "
    "best of those of the modalities it keeps. On test examples that lack modalities, the two count other examples: "
    "where they are compared, in `robustness` and `uncertainty`, it is over those that both count.",
    "UME average": "The uni-modal models of what is left, joined by Bayes' rule as if they were independent given the "
    "class: their logits add up, and the prior of the classes counts once. One model alone decides as it does.",
    "missing rate": "Exactly round(rate x examples) examples, drawn by a seeded table, lose the named modality; "
    "'mixed': they lose one modality each, all modalities in equal shares. No example loses the last modality it has. "
    "Mean and standard deviation are over the seeds of the tables, of one trained model.",
    "macro_f1": "Mean over all classes of the dataset; a class neither predicted nor there counts 0.",
}
MULTI_LABEL_DEFINITIONS = {
    "threshold": "A class is predicted where its probability, the sigmoid of its logit, is above 0.5.",
    "micro_f1": "Of the counts of all classes together.",
    "weighted_f1": "Mean over the classes, each weighted by the number of examples that have it.",
    "samples_f1": "Mean over the examples of the F1 between predicted and true classes; an example with neither "
    "counts 0.",
    "mAP": "Mean of the average precision over the classes that any counted example has; it needs no threshold.",
}
TUNED_DEFINITION = {
    "tuned threshold": "Each pattern, and each uni-modal model, has a threshold for each class, on calibrated "
    "probabilities, tuned on those validation examples that have all modalities of the pattern: between that of the "
    "class's own highest F1 and, the rarer the class the more, the one for all classes of the highest macro-F1. It is "
    "0.50 where there are no such examples. "
    "At a missing rate each example is decided at the thresholds of the pattern that it is left with."
}
ANALYSIS_DEFINITIONS = {
    "uncertainty": {
        "interval": "Percentile interval of a bootstrap over the examples of the split, of one trained model. The same "
        "resamples serve every pattern, so that differences between patterns are paired.",
    },
    "calibration": {
        "ECE": "Expected calibration error: mean distance between confidence and the share that is true, over 15 "
        "bins. Bins of equal mass hold equally many decisions each; those of equal width divide 0 to 1 evenly.",
        "temperature": "The logits are divided by it. Fitted per pattern on validation examples alone, by their NLL.",
        "NLL": "Mean negative log-likelihood of the labels, in nats.",
        "AURC": "Area under the risk-coverage curve: mean error over all shares of examples kept, the surest first.",
    },
    "conformal": {
        "conformal set": "The classes that the true one is among at the wanted rate, whatever the model; the quantile "
        "is of each pattern's own validation examples.",
    },
    "worst_class": {
        "worst class": "The class with the lowest recall; of multi-label data, with the lowest F1.",
    },
    "label_free_bias": {
        "label-free bias": "A number for each class that is added to a pattern's logits, fitted to the test examples "
        "without their labels, so that predictions come near the shares of the classes, and each near the complete "
        "prediction of a validation example that looks alike (TLP, arXiv 2609.02039). All other numbers of the report "
        "are without it.",
    },
    "robustness": {
        "area": "Area under the curve of the metric against the missing rate, over the value with everything there: "
        "100 % where nothing is lost at any rate.",
        "counter-intuitive": "Share of the examples that are right with fewer modalities and wrong with more.",
        "deployment mix": "How often each pattern is expected in use; the expected value is the mean of the patterns' "
        "values under these weights.",
    },
    "shapley": {
        "Shapley value": "A modality's mean gain over all orders in which the modalities can be added to none. The "
        "values of all modalities add up to the complete value less that of guessing without any.",
    },
    "information": {
        "entropy": "V-entropy, in nats: the NLL of the calibrated model, what it leaves open about the label. It is an "
        "upper bound of the true conditional entropy.",
        "complementary": "What a modality tells that no other does: entropy given the rest less entropy given all.",
        "redundancy": "What the modalities tell alone, added up, less what they tell together. Above zero they repeat "
        "each other; below zero they tell more together than each for itself.",
        "Bayes error": "An entropy H bounds the error of the best possible classifier by 1 - exp(-H) from above; of "
        "multi-label data, its share of wrong decisions. No lower bound follows: H is itself only an upper bound.",
    },
    "rate_maps": {
        "two rates": "Each of two modalities is lost independently, at its own rate; the others stay. Who would lose "
        "everything keeps one.",
    },
}


REGRESSION_DEFINITIONS = {
    "r2": "Coefficient of determination: 1 less the squared error over that of the examples' own mean, in %. 0: no "
    "better than that mean; below 0: worse. Of several targets the mean over them.",
    "rmse": "Root of the mean squared error, in the unit of the target; of several targets the mean over them.",
    "mae": "Mean absolute error, likewise.",
    "spearman": "Correlation of the ranks of predictions and targets; of several targets the mean over them.",
    "UME average": "The uni-modal models of what is left, joined by Bayes' rule as if they were independent given the "
    "target and Gaussian: what each tells beyond the prior adds up, and the prior counts once.",
}
REGRESSION_ANALYSIS = {
    "calibration": {
        "calibration error": "Mean distance between the level of central intervals of the model's belief, 5 % to 95 %, "
        "and the share of the targets within.",
        "sigma scale": "The standard deviations are multiplied by it. Fitted per pattern on validation examples alone, "
        "by their likelihood.",
        "NLL": "Mean negative log-density of the targets in training standard deviations, in nats: it can be below 0. "
        "Of several targets the mean over them.",
    },
    "conformal": {
        "conformal interval": "The prediction and so many calibrated standard deviations to both sides that the target "
        "is within at the wanted rate, whatever the model; how many is of each pattern's own validation examples. "
        "Width is in the unit of the target.",
    },
    "information": {
        "entropy": "V-entropy, in nats: the NLL of the calibrated model. It is an upper bound of the true conditional "
        "entropy, which of numbers is differential: only differences mean anything.",
        "complementary": ANALYSIS_DEFINITIONS["information"]["complementary"],
        "redundancy": ANALYSIS_DEFINITIONS["information"]["redundancy"],
        "squared error at most": "The mean squared error of the best possible predictor grows by at most 2 c^2 G where "
        "G nats of complementary information are lost, c being half of what the targets span.",
    },
}
CLASSES_ONLY = ("macro_f1", "counter-intuitive")


def definitions(results: dict) -> dict[str, str]:
    """What the words mean that stand in the report of these results."""
    analyses = ANALYSIS_DEFINITIONS | (REGRESSION_ANALYSIS if is_regression(results) else {})
    found = dict(DEFINITIONS)
    for key, words in analyses.items():
        if key in results:
            found |= words
    if is_regression(results):
        return {word: meaning for word, meaning in found.items() if word not in CLASSES_ONLY} | REGRESSION_DEFINITIONS
    if results["metric"] == "macro_f1":  # multi-label
        found |= MULTI_LABEL_DEFINITIONS
    if "thresholds" in results:
        found |= TUNED_DEFINITION
    return found
