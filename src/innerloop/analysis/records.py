"""The results of experiments."""

from typing import Any

Record = dict[str, Any]
"""A plain result: names with numbers, strings, lists and further records, as JSON holds them."""
