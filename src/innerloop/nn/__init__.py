"""Built-in models: pytrees of parameters that are called on a batch."""

from innerloop.nn.conv4 import Conv4 as Conv4
from innerloop.nn.mlp import MLP as MLP
