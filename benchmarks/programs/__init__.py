"""What a compiled program does, counted from its text: kernels, loops, bytes and operations."""
