"""Online MAML on the chunks of a text."""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

import innerloop as il
from innerloop.algorithms.online_maml import OnlineMAML
from innerloop.engine.inner.unroll import Observe

from .decoder import Chunk, Sizes, Window, chunk_loss, prefix


@dataclass(frozen=True)
class TestTimeTraining(OnlineMAML):
    """Online MAML on chunks; the support set of a task is a text of `context + 1` bytes."""

    sizes: Sizes = Sizes()

    def trajectory(
        self,
        meta_params: PyTree,
        support: Int[Array, " bytes"],
        observe: Observe | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> il.Trajectory:
        """Run the prefix once, then take a step on every chunk."""
        s = self.sizes
        split = lambda x: x.reshape(s.chunks, s.chunk, *x.shape[1:])
        chunks = Chunk(split(prefix(meta_params, support[:-1], s)), split(support[1:]))
        return super().trajectory(meta_params, chunks, observe, key=key)


def test_time_training(rule: optax.GradientTransformation, s: Sizes) -> TestTimeTraining:
    """The algorithm with this inner rule; a rule that changes nothing gives the model without test-time training."""
    nothing = [jnp.zeros((s.window, s.heads, s.width // s.heads))] * s.suffix
    state = Window(nothing, nothing, jnp.zeros((), jnp.int32))
    loss = il.Loss(partial(chunk_loss, s), state=state, aux=True, differentiate_state=True)
    inner = il.InnerLoop(
        rule, s.chunks, select="prime", stream=True, derivative="rematerialised", checkpoints="sqrt"
    )
    return TestTimeTraining(loss, inner, sizes=s)


def clipped(rate: float) -> optax.GradientTransformation:
    """Gradient descent with gradients clipped to norm 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))
