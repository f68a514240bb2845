"""Built-in models, pytrees of parameters that can be called on a batch, with their layers and losses."""

from innerloop.nn.conv4 import Conv4 as Conv4
from innerloop.nn.layers import BatchNorm as BatchNorm
from innerloop.nn.layers import ConvBlock as ConvBlock
from innerloop.nn.layers import Linear as Linear
from innerloop.nn.losses import BatchLoss as BatchLoss
from innerloop.nn.losses import accuracy as accuracy
from innerloop.nn.losses import binary_cross_entropy as binary_cross_entropy
from innerloop.nn.losses import cross_entropy as cross_entropy
from innerloop.nn.losses import mean_squared_error as mean_squared_error
from innerloop.nn.losses import squared_error as squared_error
from innerloop.nn.mlp import MLP as MLP
from innerloop.nn.normalization import predict as predict
from innerloop.nn.sine import cos as cos
from innerloop.nn.sine import sin as sin
