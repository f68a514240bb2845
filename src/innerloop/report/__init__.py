"""Pages on runs and analyses: HTML, figures and tables."""
