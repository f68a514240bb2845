"""Losses whose derivatives are policy gradients, one per file: `surrogate(policy, samples) -> scalar`."""

from innerloop.rl.surrogates.dice import dice as dice
from innerloop.rl.surrogates.importance_ratio import ratio as ratio
from innerloop.rl.surrogates.ppo_clip import clipped as clipped
from innerloop.rl.surrogates.reinforce import log_probability as log_probability
