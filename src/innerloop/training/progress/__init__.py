"""Speed and time left of a run, and who is told: callbacks and the line on standard error."""
