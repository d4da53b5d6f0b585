"""From a config to a trained network: state, step, loop, checkpoints, devices."""
