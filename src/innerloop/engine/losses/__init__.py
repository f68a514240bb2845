"""The loss that algorithms hold, and what is wrong with one that cannot be used."""
