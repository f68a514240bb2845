"""Checks for any algorithm: the contract, and a comparison of its meta-gradient with finite differences."""

from innerloop.algorithms.testing.contract import check_algorithm as check_algorithm
from innerloop.algorithms.testing.meta_gradient import MetaGradientCheck as MetaGradientCheck
from innerloop.algorithms.testing.meta_gradient import check_meta_gradient as check_meta_gradient
