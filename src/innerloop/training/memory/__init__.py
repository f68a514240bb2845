"""How much memory a run needs, how it is made to fit, and what is reported if it does not."""
