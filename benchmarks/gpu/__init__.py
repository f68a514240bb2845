"""Time innerloop beside PyTorch on one GPU, within a fixed time."""
