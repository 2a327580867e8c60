"""Names of metrics, for what computes them and for what shows them."""

TUNED = "tuned_"  # begins the name of a metric that is not at threshold 0.5
