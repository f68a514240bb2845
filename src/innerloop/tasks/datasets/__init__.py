"""Data sets: files are read into class arrays, from which episode samplers draw tasks."""

from innerloop.tasks.class_arrays import ClassArrays, Splits

__all__ = ["ClassArrays", "Splits"]
