"""Trust regions and several epochs need importance weights; what has none is refused when the step is built."""

from typing import Any

import jax.numpy as jnp
import optax
import pytest

from innerloop.algorithms import joint, maml, online_maml, reptile
from innerloop.engine.inner import InnerLoop
from innerloop.engine.loss import Loss
from innerloop.errors import InnerloopError
from innerloop.rl import MetaObjective, TrustRegion, ppo_update, surrogates, trpo_update

INNER = InnerLoop(optax.sgd(0.1), 1)
STEPS = {
    "trpo": lambda algorithm: trpo_update(MetaObjective(algorithm), TrustRegion()),
    "ppo": lambda algorithm: ppo_update(MetaObjective(algorithm), optax.sgd(0.1), 2),
}


def with_bonus(policy: Any, samples: Any) -> Any:
    """DiCE in a loss of one's own."""
    return surrogates.dice(policy, samples) + 0.01 * jnp.mean(policy(samples.observations).logits ** 2)


def of_distributions(policy: Any, samples: Any) -> Any:
    """Importance weights from the acting policy's distributions."""
    log_probs = policy(samples.observations).log_prob(samples.actions)
    acted = samples.action_dist.log_prob(samples.actions)
    return -jnp.sum(samples.weights * samples.advantages * jnp.exp(log_probs - acted))


def of_parameters(policy: Any, samples: Any) -> Any:
    """A loss that only its author can judge."""
    return surrogates.dice(policy, samples) + policy.log_std.sum()


def with_divergence(policy: Any, samples: Any) -> Any:
    """No importance weights in the loss, but a divergence from the acting policy beside it."""
    log_probs = policy(samples.observations).log_prob(samples.actions)
    return surrogates.log_probability(policy, samples), {"kl": jnp.mean(samples.log_probs - log_probs)}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (maml(surrogates.dice, INNER), "importance weights .*, got dice; .*`outer_loss_fn=surrogates"),
        (joint(surrogates.log_probability, INNER), "importance weights .*, got log_probability"),
        (maml(surrogates.ratio, INNER, outer_loss_fn=with_bonus), "importance weights .*, got with_bonus"),
        (maml(surrogates.ratio, INNER, outer_loss_fn=Loss(with_divergence, aux=True)), "importance weights"),
        (
            reptile(surrogates.ratio, INNER),
            "which this algorithm does not have, got Reptile; use gradient_up",
        ),
        (online_maml(surrogates.ratio, INNER), "does not have, got OnlineMAML"),
    ],
    ids=["dice", "log_probability", "own", "aux", "reptile", "online_maml"],
)
def test_without_importance_weights(step: str, algorithm: Any, message: str):
    with pytest.raises(InnerloopError, match=f"{step}_update: needs a loss .*{message}"):
        STEPS[step](algorithm)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("loss", [surrogates.ratio, surrogates.clipped(0.2), of_distributions, of_parameters])
def test_with_importance_weights(step: str, loss: Any):
    STEPS[step](maml(surrogates.dice, INNER, outer_loss_fn=loss))
