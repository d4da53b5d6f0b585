"""The result of a run: `results.json`, a table for the terminal, a picture of accuracy and cost."""
