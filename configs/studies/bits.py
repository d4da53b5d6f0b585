"""Bits: quantised weights, quantised activations too; for all sizes in one network, and against a smaller input.

Command:  resjax study configs/studies/bits.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET, above
from resjax.evidence import Arm, Claim, Study

OURS = 'no paper: fewer bits or fewer pixels?'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, middle, _ = at.three
  plain, preact = {}, {'model.name': at.preact}
  arms = {
    'RS-Net': Arm({'distillation': 'full'}, about='32-bit floats'),
    'RS-Net pre-activation': Arm({'distillation': 'full', **preact}, about='32-bit floats, of the network of 2/2'),
  }
  claims = []
  # Bits of weights and activations; the network, pre-activation where the paper has that; the same network of floats.
  for bits, network, floats in (('2/32', plain, 'RS-Net'), ('2/2', preact, 'RS-Net pre-activation')):
    fields = {**network, 'model.quantise': bits}
    about = 'learned levels' + ', pre-activation' * bool(network)
    arms[f'RS-Net {bits}'] = Arm({'distillation': 'full', **fields}, about=about)
    arms[f'I-Net {largest} {bits}'] = Arm({'resolutions': (largest,), **fields}, about=f'one size alone{about[14:]}')
    claims += [
      Claim(f'RS-Net {bits}@{largest}', f'I-Net {largest} {bits}@{largest}', 'RS-Net helps quantised ones too', RSNET),
      *above(floats, f'RS-Net {bits}', at.sizes, 'bits cost accuracy', RSNET),
      Claim(f'RS-Net {bits}@{largest}', f'{floats}@{middle}', 'fewer bits are above fewer pixels', OURS),
    ]
  about = 'LQ-Nets with bases that all sizes share. Multiply-adds are counted alike, whatever their bits.'
  return Study(f'Bits, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
