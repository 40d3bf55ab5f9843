"""Datasets, training, evaluation and continual learning of policies."""
