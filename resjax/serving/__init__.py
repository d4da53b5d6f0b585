"""A network as a web service: HTTP in front, processes that decode, one that classifies, a dial for a deadline."""
