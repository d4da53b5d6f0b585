"""A Network as files that run without it: ONNX, StableHLO, and bundles, which are opened again."""
