"""A quantised network's variables as one small file of safetensors: codes of a few bits, bases, the rest in float32."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from resjax import checksums, formats, packing
from resjax.network import Network
from resjax.quantisation import BASES
from resjax.resolution import name
from resjax.switchable import SHARED_SET, Variables

KIND = 'resjax packed weights'
_FACTS = 'resjax'


def write(network: Network, out: pathlib.Path) -> None:
  """Writes the variables of a network at its resolutions.

  Args:
    network: With quantised weights.
    out: A new file; its folder is there.

  Raises:
    ValueError: Its weights are not quantised, or not finite.
    OSError: It can't be written.
  """
  from safetensors import numpy

  variables = _own(network)
  if packing.size(variables).bits is None:
    raise ValueError("format: got packed for float weights, expected a network trained with model.quantise, as '2/32'")
  network.check_finite()
  arrays, shapes = packing.pack(variables)
  facts = {'kind': KIND, 'format': formats.FORMAT, 'shapes': shapes}
  facts['checksum'] = _sum(arrays, facts)
  out.write_bytes(numpy.save(arrays, {_FACTS: json.dumps(facts)}))


def read(path: pathlib.Path | str) -> Variables:
  """Returns what `write` wrote, as variables of the network: `network.replace(variables=packed.read(FILE))`.

  Weights are quantised already, bit for bit as in the network that was written.

  Raises:
    ValueError: It is no such file, damaged, or a newer version wrote it.
    OSError: It can't be read.
  """
  from safetensors import SafetensorError, safe_open

  expected = 'expected a file of resjax export --format=packed'
  try:
    with safe_open(path, framework='np') as file:
      facts = json.loads((file.metadata() or {}).get(_FACTS, '{}'))
      arrays = {key: file.get_tensor(key) for key in file.keys()}
    if not isinstance(facts, dict) or facts.get('kind') != KIND:
      raise ValueError(f'{path}: holds something else, {expected}')
    if facts.pop('checksum', None) != _sum(arrays, facts):
      raise ValueError(f'{path}: damaged (it has changed since it was written), {expected}')
  except (SafetensorError, json.JSONDecodeError) as error:
    raise ValueError(f'{path}: damaged ({type(error).__name__}: {error}), {expected}') from None
  formats.check(facts.get('format'), path)
  try:
    return packing.unpack(arrays, facts['shapes'])
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise ValueError(f'{path}: damaged ({type(error).__name__}: {error}), {expected}') from None


def _sum(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
  """A checksum of all that a file holds: names, types, shapes and bytes of its arrays, and what it says of them."""
  said = [[key, str(array.dtype), array.shape] for key, array in sorted(arrays.items())]
  content = json.dumps([said, facts], sort_keys=True).encode()
  return checksums.sum_of(b''.join([content, *(array.tobytes() for _, array in sorted(arrays.items()))]))


def _own(network: Network) -> Variables:
  """The variables without the private sets of other resolutions."""
  keys = {SHARED_SET, BASES, 'predictor', *map(name, network.resolutions)}
  params, statistics = network.variables['params'], network.variables['batch_stats']
  private = {key: value for key, value in params['private'].items() if key in keys}
  kept = {key: value for key, value in statistics.items() if key in keys}
  return {'params': params | {'private': private}, 'batch_stats': kept}
