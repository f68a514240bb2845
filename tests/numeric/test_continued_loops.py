"""An inner loop in pieces is the whole loop: its values, and every derivative through it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop import Batch, InnerLoop, InnerloopError, Loss, unroll

KEY = jax.random.key(3)
PARAMS = {"body": np.linspace(-1, 1, 6).reshape(3, 2), "head": np.zeros(2)}
SUPPORT = Batch(np.cos(np.arange(21.0)).reshape(7, 3), np.sin(np.arange(14.0)).reshape(7, 2))


def noisy_loss(params, batch, key, state):
    """A random loss with model state: a running mean of its outputs."""
    out = jnp.tanh(batch.inputs @ params["body"]) + params["head"]
    out = out + 0.1 * jax.random.normal(key, out.shape)
    return jnp.mean((out - batch.targets - state) ** 2), 0.9 * state + 0.1 * out.mean(0)


LOSS = Loss(noisy_loss, random=True, state=np.zeros(2), differentiate_state=True)
LOOPS = {
    "adam on the head": InnerLoop(optax.adam(0.1), select="head"),
    "minibatches": InnerLoop(optax.sgd(0.1, momentum=0.9), minibatch=2),
    "mixed mode with checkpoints": InnerLoop(optax.sgd(0.1, momentum=0.9), derivative="mixed", checkpoints=2),
    "a stream": InnerLoop(optax.sgd(0.1, momentum=0.9), stream=True),
}


def observed(adapted, i):
    return adapted.params["head"] * i


def of_steps(loop, first, last):
    """The loop of steps first..last-1, and its support set."""
    steps = InnerLoop(**(vars(loop) | {"steps": last - first}))
    items = jax.tree.map(lambda x: jnp.stack([x + 0.1 * i for i in range(first, last)]), SUPPORT)
    return steps, items if loop.stream else SUPPORT


def in_pieces(loop, params, cuts):
    """The adapted parameters and the observations of all pieces, of which each begins with the last one's end."""
    pieces = []
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        steps, support = of_steps(loop, first, last)
        start = pieces[-1].end if pieces else None
        pieces.append(unroll(LOSS, steps, params, support, observed, start=start, key=KEY))
    seen = [piece.observed[0 if i == 0 else 1 :] for i, piece in enumerate(pieces)]
    return pieces[-1].adapted, jnp.concatenate(seen)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_continued_inner_loop_matches_uninterrupted_loop(loop):
    """Values, keys, minibatches, model state, observations and meta-gradients."""

    @jax.jit
    def both(params):
        total = lambda params, cuts: sum(x.sum() for x in jax.tree.leaves(in_pieces(loop, params, cuts)))
        cuts = (0, 7), (0, 3, 4, 7)
        return [(in_pieces(loop, params, cut), jax.grad(total)(params, cut)) for cut in cuts]

    whole, pieces = both(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), whole, pieces)
    assert abs(whole[1]["body"]).max() > 1e-3


def test_step_of_start_may_be_python_int():
    params = jax.tree.map(jnp.asarray, PARAMS)
    loop = LOOPS["minibatches"]
    end = unroll(LOSS, loop, params, SUPPORT, key=KEY).end
    seen = unroll(LOSS, loop, params, SUPPORT, lambda _, i: i, start=end._replace(step=2), key=KEY).observed
    assert seen.tolist() == [2, 3]


def test_unroll_rejects_start_state_of_different_loop():
    params = jax.tree.map(jnp.asarray, PARAMS)
    loop = InnerLoop(optax.adam(0.1), 0, select="head")
    end = unroll(LOSS, loop, params, SUPPORT, key=KEY).end
    for other in (InnerLoop(optax.sgd(0.1), 1, select="head"), InnerLoop(optax.adam(0.1), 1)):
        with pytest.raises(InnerloopError, match="unroll: `start` is not a state of this inner loop"):
            unroll(LOSS, other, params, SUPPORT, start=end, key=KEY)
