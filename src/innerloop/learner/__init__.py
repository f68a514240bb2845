"""An estimator with `fit` and `predict`, for users with arrays."""

from innerloop.learner.learner import Learner as Learner
