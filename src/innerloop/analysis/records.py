"""The results of experiments."""

from innerloop.io.untrusted import JsonObject

Record = JsonObject
"""A plain result: names with numbers, strings, lists and further records, as JSON holds them."""
