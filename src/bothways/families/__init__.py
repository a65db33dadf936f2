"""Published architectures as data: a config translation and a weight-name map each, both directions."""
