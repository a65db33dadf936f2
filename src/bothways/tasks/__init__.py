"""Putting a model to work: classify, tag and rewrite, all through one fine-tuning loop."""
