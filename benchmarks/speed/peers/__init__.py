"""The PyTorch contenders, which run in the environment .venv-bench."""
