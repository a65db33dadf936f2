"""What a model is worth: every number is a Score that names its estimator, and carries the items it is a mean of."""
