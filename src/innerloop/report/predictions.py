"""A model's outputs on one task after every inner step."""

import jax
import numpy as np
from jaxtyping import Array, Float

from innerloop.config.schema import Normalization
from innerloop.engine.types import Batch, Params
from innerloop.nn.losses import call
from innerloop.nn.normalization import predict
from innerloop.training.supervised import SupervisedExperiment


def outputs_by_step(
    experiment: SupervisedExperiment,
    params: Params,
    support: Batch,
    query_inputs: object,
    *,
    steps: int,
    normalization: Normalization,
) -> Float[np.ndarray, "steps1 query outputs"]:
    """Compute the outputs for queries after 0..steps inner steps.

    Args:
        experiment: the model's experiment.
        params: the meta-parameters.
        support: the examples to adapt to.
        query_inputs: the queries, `[query, ...]`.
        steps: inner steps.
        normalization: which batch normalises a query.

    Returns:
        The outputs, with a leading axis of `steps + 1`.
    """
    algorithm = experiment.test_algorithm.with_inner(steps=steps)

    def answers(params: Params, support: Batch, query_inputs: object) -> Array:
        observe = lambda adapted, i: predict(call, adapted, support.inputs, query_inputs, normalization)
        return algorithm.trajectory(params, support, observe).observed

    return np.asarray(jax.jit(answers)(params, support, query_inputs))
