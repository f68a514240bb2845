"""The algorithms, one equation a file; `innerloop.config.specs` has their table."""

from innerloop.algorithms.anil import anil
from innerloop.algorithms.boil import boil
from innerloop.algorithms.fomaml import fomaml
from innerloop.algorithms.joint import joint
from innerloop.algorithms.maml import maml
from innerloop.algorithms.reptile import reptile

__all__ = ["anil", "boil", "fomaml", "joint", "maml", "reptile"]
