"""The algorithms, one equation per file; `innerloop.config.specs` has their table."""

from innerloop.algorithms.anil import anil
from innerloop.algorithms.boil import boil
from innerloop.algorithms.cavia import cavia
from innerloop.algorithms.fomaml import fomaml
from innerloop.algorithms.imaml import IMAML as IMAML
from innerloop.algorithms.imaml import Residuals as Residuals
from innerloop.algorithms.imaml import imaml
from innerloop.algorithms.joint import joint
from innerloop.algorithms.maml import maml
from innerloop.algorithms.maml_plus_plus import maml_plus_plus
from innerloop.algorithms.meta_sgd import meta_sgd
from innerloop.algorithms.online_maml import online_maml
from innerloop.algorithms.protomaml import protomaml
from innerloop.algorithms.reptile import reptile

__all__ = [
    "anil",
    "boil",
    "cavia",
    "fomaml",
    "imaml",
    "joint",
    "maml",
    "maml_plus_plus",
    "meta_sgd",
    "online_maml",
    "protomaml",
    "reptile",
]
