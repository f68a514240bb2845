"""Differentiating through training: types, selection, inner loop, algorithm, outer loop, evaluation."""
