"""Differentiating through training.

- `types` says what tasks, batches and parameters are, and `pytree` selects parts of parameters.
- `algorithm` is what every algorithm provides: `adapt` and `meta_grad` of one task, with its loss (`losses`) and its
  `inner` loop.
- `outer` averages meta-gradients over tasks and updates the meta-parameters, and `evaluation` measures them.
- `checks` and `diagnosis` find what is wrong before and during training.
"""
