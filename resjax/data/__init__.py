"""Images for training and evaluation: sources, decoding, crops and batches, without TensorFlow."""
