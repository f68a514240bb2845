"""fit and predict on an initialisation, for people with arrays."""

from innerloop.learner.learner import Learner as Learner
