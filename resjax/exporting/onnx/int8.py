"""A model of ONNX that computes in int8, its ranges set on images: static quantisation, a scale for each channel."""

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from resjax.exporting.onnx.graph import INPUT, SMALL, Weights

# What is computed in int8; ONNX Runtime takes a Clip into the operation before it.
_OPERATIONS = ('Conv', 'MatMul', 'Gemm', 'Add', 'Clip')

_BATCH = 8  # images at a time, of the calibration

# Codes of two resolutions that differ in fewer than one of so many, and there by one, are the same weights: they were
# scaled by other factors, and rounded the other way where they lay between two codes.
_APART = 1000


def quantised(model: ModelProto, crops: np.ndarray, **options: Any) -> ModelProto:
  """Returns a model whose weights are int8, and whose activations are uint8 from the least to the largest value seen.

  Weights have a scale for each output channel, activations one for each tensor (QDQ, as ONNX Runtime has it).

  Args:
    model: Of float32, its weights in it; its input is `crops`.
    crops: uint8 `[N, H, W, 3]`, on which the ranges are set.
    **options: Of ONNX Runtime's `quantize_static`, in the place of these; a node is named `Conv_4` by its operation and
      its place.

  Raises:
    ValueError: There are no crops.
  """
  if not len(crops):
    raise ValueError('images: got none that could be read, expected some to set the ranges of int8 on')
  named = ModelProto()
  named.CopyFrom(model)
  for number, node in enumerate(named.graph.node):
    node.name = node.name or f'{node.op_type}_{number}'
  add_pre_process_metadata(named)  # BatchNorm is folded already; without it, it tells of that
  with tempfile.TemporaryDirectory(prefix='resjax_int8_') as folder:
    out = pathlib.Path(folder) / 'int8.onnx'
    quantization.quantize_static(
      named,
      out,
      _Crops(crops),
      **{
        'quant_format': quantization.QuantFormat.QDQ,
        'per_channel': True,
        'activation_type': quantization.QuantType.QUInt8,
        'weight_type': quantization.QuantType.QInt8,
        'op_types_to_quantize': list(_OPERATIONS),
        **options,
      },
    )
    found = onnx.load(out)
  found.producer_name = model.producer_name
  return found


class Shared:
  """Takes the weights of models in int8, those that several have once."""

  def __init__(self, weights: Weights):
    """Takes what has them."""
    self._weights = weights
    self._codes: dict[tuple[int, ...], list[np.ndarray]] = {}

  def take(self, model: ModelProto) -> ModelProto:
    """Moves a model's constants that are not small to the weights; returns the model."""
    for proto in model.graph.initializer:
      array = numpy_helper.to_array(proto)
      if array.nbytes >= SMALL:
        proto.CopyFrom(TensorProto(name=proto.name, dims=proto.dims, data_type=proto.data_type))
        self._weights.refer(proto, self._once(array) if array.dtype == np.int8 else array)
    return model

  def _once(self, codes: np.ndarray) -> np.ndarray:
    """The codes as they were, where they are the same but for rounding."""
    known = self._codes.setdefault(codes.shape, [])
    for other in known:
      apart = np.abs(codes.astype(np.int16) - other)
      if apart.max() <= 1 and _APART * np.count_nonzero(apart) <= apart.size:
        return other
    known.append(codes)
    return codes


class _Crops(quantization.CalibrationDataReader):
  """Crops, a few at a time."""

  def __init__(self, crops: np.ndarray):
    """Takes all."""
    self._parts: Iterator[np.ndarray] = (crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH))

  def get_next(self) -> dict[str, np.ndarray] | None:
    """Returns the next, None at the end."""
    part = next(self._parts, None)
    return None if part is None else {INPUT: part}
