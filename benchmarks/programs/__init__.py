"""Count a compiled program's kernels, loops, bytes and operations in its text."""
