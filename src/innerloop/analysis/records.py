"""The results of experiments."""

from innerloop.io.untrusted import JsonObject

Record = JsonObject
"""A JSON-compatible result: a dict of numbers, strings, lists and nested records."""
