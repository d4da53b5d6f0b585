"""What XLA's compiler says of a program in text: the bytes that it exchanges, or why it is refused."""

import math
import re

_COLLECTIVE = re.compile(
  r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)(-start)?\('
)
_ARRAY = re.compile(r'\b(pred|bf16|[fsuc]\d+)\w*\[([\d,]*)\]')


def collectives(hlo: str) -> dict[str, int]:
  """Returns the bytes on one device that each kind of collective of a compiled program results in.

  Args:
    hlo: The program's text; collectives in loops count once.
  """
  found: dict[str, int] = {}
  for line in hlo.splitlines():
    if match := _COLLECTIVE.search(line):
      shapes = match[1]
      if match[3] and match[2] in ('all-gather', 'collective-permute'):  # (operands, results, ...)
        shapes = _second(shapes)
      found[match[2]] = found.get(match[2], 0) + sum(_array_bytes(*array) for array in _ARRAY.findall(shapes))
  return found


def _second(shapes: str) -> str:
  """The second element of a tuple of shapes; elements may be tuples too."""
  depth, commas = 0, []
  for place, letter in enumerate(shapes):
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and depth == 1:
      commas.append(place)
  return shapes[slice(*[*commas, len(shapes)][:2])]


def _array_bytes(kind: str, shape: str) -> int:
  """The bytes of an array in HLO's words, such as f32 and `3,64`."""
  bits = 8 if kind == 'pred' else int(re.sub(r'\D', '', kind))
  return math.prod(int(size) for size in shape.split(',') if size) * bits // 8


def refused(message: str) -> int | None:
  """Returns the bytes that a program would need at least, from the compiler's words that there is no room for it."""
  if 'RESOURCE_EXHAUSTED' not in message:
    return None
  found = re.search(r'(?:Used |temporaries \()([\d.]+)([KMGT])', message)
  return round(float(found[1]) * 2 ** {'K': 10, 'M': 20, 'G': 30, 'T': 40}[found[2]]) if found else 0
