"""A trained network measured: accuracy at every budget, seconds, what its answers say of each other."""
