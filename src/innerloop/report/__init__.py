"""Reports on runs and analyses: HTML pages, figures and tables."""
