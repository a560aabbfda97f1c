"""Training of torch models, which generators and predictors share: loop, batches, checkpoints, settings, weights."""
