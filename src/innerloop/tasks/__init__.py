"""Task distributions: sinusoids, episodes from class arrays (on the device or streamed), and groups of a table."""

from innerloop.tasks import tables as tables
from innerloop.tasks.augmentation import Augmented as Augmented
from innerloop.tasks.class_arrays import ClassArrays as ClassArrays
from innerloop.tasks.class_arrays import Splits as Splits
from innerloop.tasks.episodes import Episodes as Episodes
from innerloop.tasks.episodes import with_rotations as with_rotations
from innerloop.tasks.iterator_loop import IteratorOuterLoop as IteratorOuterLoop
from innerloop.tasks.sinusoid import Sinusoid as Sinusoid
from innerloop.tasks.streaming import StreamedEpisodes as StreamedEpisodes
from innerloop.tasks.streaming import StreamedOuterLoop as StreamedOuterLoop
