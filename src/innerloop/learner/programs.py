"""The compiled programs of a learner: its inner loop, and the outputs of its model."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, PyTree

from innerloop.config.schema import Normalization
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.diagnosis import Diverged, advice, locate_in_parameters
from innerloop.engine.losses.loss import Adapted, is_random, with_state
from innerloop.engine.types import Batch, Params
from innerloop.errors import InnerloopError, first_line
from innerloop.learner.outputs import active_outputs, batch_loss, loss_on_active_outputs
from innerloop.learner.samples import support_pairs
from innerloop.nn.normalization import predict
from innerloop.parallel.compile_once import compile_once

QUERIES = 64
"""Examples predicted at a time."""

FEW = 64
"""Up to this many examples of `fit` are passed to the model with each query, whether predictions need them or not."""


class Programs:
    """The programs of one algorithm and one normalisation, compiled for each number of classes that is asked for.

    Their argument `ways` is the number of classes (None: a regressor).
    """

    def __init__(self, algorithm: Algorithm, normalization: Normalization):
        self.algorithm = algorithm
        self.normalization: Normalization = normalization
        self._output_shapes: dict[Hashable, tuple[int, ...]] = {}
        self._compiled: dict[int | None, tuple[Callable[..., PyTree], Callable[..., PyTree]]] = {}
        self._depends: tuple[Params, bool] | None = None

    def __reduce__(self) -> tuple[type["Programs"], tuple[Algorithm, Normalization]]:
        return Programs, (self.algorithm, self.normalization)

    def output_shape(self, params: Params, inputs: np.ndarray) -> tuple[int, ...]:
        """The shape of the model's outputs. Raises InnerloopError if the model does not take these inputs."""
        key = (inputs.shape, inputs.dtype)
        if key not in self._output_shapes:
            try:
                apply, inner = batch_loss(self.algorithm.loss_fn).predictor(unadapted(self.algorithm, params))
                outputs = jax.eval_shape(lambda *given: apply(*given), inner, inputs)
            except (TypeError, ValueError, IndexError) as error:
                wrong = f"the model does not accept these inputs ({first_line(error)})"
                raise InnerloopError("Learner.fit", wrong, got=f"x of shape {inputs.shape}") from error
            if not outputs.shape or outputs.shape[0] != len(inputs):
                hint = "make apply take and return a batch (jax.vmap)"
                raise InnerloopError(
                    "apply", "must return one output per example", got=f"shape {outputs.shape}", hint=hint
                )
            self._output_shapes[key] = outputs.shape
        return self._output_shapes[key]

    def adapt(self, params: Params, support: Batch, ways: int | None) -> tuple[Params, np.ndarray]:
        """The adapted parameters, and the loss before each inner step. Raises Diverged if it does."""
        adapted, losses = self._compiled_for(ways)[0](params, support)
        _check_converges(params, adapted, losses)
        return adapted, np.asarray(losses)

    def outputs(
        self, params: Params, support: np.ndarray, queries: np.ndarray, ways: int | None
    ) -> np.ndarray:
        """The outputs in use for `queries`, `[examples, ...]`."""
        compiled = self._compiled_for(ways)[1]
        if self.normalization == "transductive":
            return np.asarray(compiled(params, support[:1], queries))
        if len(support) > FEW and not self._needs_all(params, support):
            support = support[:1]
        run = lambda some: np.asarray(compiled(params, support, some))
        # Queries are independent: predict them in pieces, padded to a few sizes to limit compilations.
        pieces = [queries[i : i + QUERIES] for i in range(0, len(queries), QUERIES)]
        return np.concatenate([run(_filled(piece))[: len(piece)] for piece in pieces])

    def needs_examples(self, params: Params, like: np.ndarray) -> bool:
        """Whether predictions with these parameters depend on the examples, tested with similar ones and with fewer.

        Args:
            params: the adapted parameters.
            like: the examples, with the shape and type that the model takes; if empty, random numbers are tried.
        """
        if self.normalization == "transductive":
            return False
        outputs = self._compiled_for(None)[1]
        same = lambda a, b: np.array_equal(a, b, equal_nan=True)
        # Sums of other sizes are rounded differently.
        close = lambda a, b: np.allclose(a, b, 1e-4, 1e-5, equal_nan=True)
        return any(
            not same(found := np.asarray(outputs(params, one, queries)), outputs(params, other, queries))
            or not close(found, outputs(params, one[:1], queries))
            for queries, one, other in support_pairs(like)
        )

    def _needs_all(self, params: Params, support: np.ndarray) -> bool:
        """`needs_examples`, remembered for the parameters of the last call."""
        known = self._depends  # read once: copies in other threads share these programs
        if known is None or known[0] is not params:
            known = self._depends = params, self.needs_examples(params, support)
        return known[1]

    def _compiled_for(self, ways: int | None) -> tuple[Callable[..., PyTree], Callable[..., PyTree]]:
        """`_adapt(params, support)` and `_outputs(params, support, queries)`, compiled."""
        if ways not in self._compiled:
            one = lambda function: compile_once(partial(function, ways=ways))
            self._compiled[ways] = one(self._adapt), one(self._outputs)
        return self._compiled[ways]

    def _adapt(self, params: Params, support: Batch, ways: int | None) -> tuple[Params, Array]:
        """Run the inner loop on the outputs in use."""
        loss_fn = loss_on_active_outputs(self.algorithm.loss_fn, ways)
        key = jax.random.key(0) if is_random(loss_fn) else None  # fixed, so that a fit is reproducible
        trajectory = replace(self.algorithm, loss_fn=loss_fn).trajectory(params, support, key=key)
        return trajectory.adapted, trajectory.losses

    def _outputs(self, params: Params, support: Array, queries: Array, ways: int | None) -> Array:
        apply, params = batch_loss(self.algorithm.loss_fn).predictor(params)
        return active_outputs(predict(apply, params, support, queries, self.normalization), ways)


def unadapted(algorithm: Algorithm, params: Params) -> Params | Adapted:
    """The parameters before a fit, with the model state if there is any."""
    return with_state(algorithm.initialization(params), algorithm.loss_fn)


def _filled(queries: np.ndarray) -> np.ndarray:
    """Queries padded with the first one to a power of two."""
    missing = (1 << (len(queries) - 1).bit_length()) - len(queries)
    return np.concatenate([queries, np.repeat(queries[:1], missing, axis=0)])


def _check_converges(params: Params, adapted: Params, losses: Array) -> None:
    """Raise Diverged unless losses and parameters are finite."""
    sound = np.isfinite(np.asarray(losses))
    if not sound.all() or not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(adapted)):
        step = int(np.argmin(sound)) if not sound.all() else len(sound) - 1
        place = locate_in_parameters(params)
        where = f"at inner step {step}" if place is None else f"in {place.text}"
        got = f"losses {np.asarray(losses).tolist()}"
        hint = advice(place, "the inner step size, or scale the inputs", "")
        raise Diverged("Learner.fit", f"the inner loop diverged {where}", got=got, hint=hint)
