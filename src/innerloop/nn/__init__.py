"""Built-in models: pytrees of parameters that can be called on a batch."""

from innerloop.nn.conv4 import Conv4 as Conv4
from innerloop.nn.mlp import MLP as MLP
