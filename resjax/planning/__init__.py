"""What a training step needs on a pod that is not there: memory, multiply-adds, what it exchanges."""
