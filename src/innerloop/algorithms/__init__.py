"""The algorithms, one equation a file. The command, the contract tests and the docs read `__all__`."""

from innerloop.algorithms.anil import anil
from innerloop.algorithms.boil import boil
from innerloop.algorithms.fomaml import fomaml
from innerloop.algorithms.joint import joint
from innerloop.algorithms.maml import maml
from innerloop.algorithms.reptile import reptile

__all__ = ["anil", "boil", "fomaml", "joint", "maml", "reptile"]
