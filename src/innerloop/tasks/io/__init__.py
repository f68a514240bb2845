"""Reading and writing class arrays: downloads, archives, images, splits, cache."""
