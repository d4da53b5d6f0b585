"""Names in pictures: short, without mark-up, in letters that the font has."""

import functools

from resjax.telling import printable

__all__ = ['drawn']


def drawn(name: str, most: int) -> str:
  r"""Returns a name as matplotlib draws it: cut, no `$` a formula, and `\u732b` for a letter that the font has not."""
  name = printable(name if len(name) <= most else f'{name[: most - 1]}…').replace('$', r'\$')
  return name if name.isascii() else ''.join(c if c.isascii() or ord(c) in _letters() else ascii(c)[1:-1] for c in name)


@functools.cache
def _letters() -> frozenset[int]:
  """The code points that the font has, which else become boxes, with a warning for each."""
  from matplotlib import font_manager  # not before a picture is drawn

  font = font_manager.findfont(font_manager.FontProperties())
  return frozenset(font_manager.get_font(font).get_charmap())
