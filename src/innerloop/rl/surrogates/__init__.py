"""Losses whose derivatives are policy gradients, one a file: `surrogate(policy, samples) -> scalar`."""

from innerloop.rl.surrogates.clipped import clipped as clipped
from innerloop.rl.surrogates.dice import dice as dice
from innerloop.rl.surrogates.log_probability import log_probability as log_probability
from innerloop.rl.surrogates.ratio import ratio as ratio
