"""What the files of an exported network are called."""

from resjax.resolution import Resolution, name

WEIGHTS = 'weights.bin'
PREDICTOR = 'predictor.onnx'


def file_of(resolution: Resolution) -> str:
  """Returns what the file of a resolution is called."""
  return f'{name(resolution)}.onnx'
