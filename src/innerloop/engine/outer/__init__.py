"""The outer loop: the mean of meta-gradients over tasks, chunks and devices, and the update."""
