"""Class arrays from and to files: download, archives, images, splits, cache."""
