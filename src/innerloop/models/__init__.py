"""Built-in models: pytrees of parameters that are called on a batch."""

from innerloop.models.conv4 import Conv4 as Conv4
from innerloop.models.mlp import MLP as MLP
