"""Studies of the papers' claims; docs/studies.md."""
