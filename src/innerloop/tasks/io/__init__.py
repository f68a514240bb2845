"""Reading and writing class arrays: downloads, archives, images, splits, cache."""

from innerloop.tasks.io import class_splits as class_splits
from innerloop.tasks.io.cache import cached as cached
from innerloop.tasks.io.download import Source as Source
from innerloop.tasks.io.download import locate as locate
