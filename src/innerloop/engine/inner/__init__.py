"""The inner loop of one task: its steps, its optimiser states, and the ways to differentiate it.

`inner_loop` holds the settings, `unroll` runs the loop and `inner_step` takes one step. `nested_scan`, `mixed_mode` and
`loop_invariants` change what is stored and computed; `custom_rules` and `safe_roots` give single functions their
derivatives.
"""
