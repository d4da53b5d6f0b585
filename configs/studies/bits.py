"""Bits: quantised weights, quantised activations too; for all sizes in one network, and against a smaller input.

Command:  resjax study configs/studies/bits.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET, above
from resjax.evidence import Arm, Claim, Study

OURS = 'no paper: fewer bits or fewer pixels?'
BITS = ('2/32', '2/2')  # of weights and activations


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, middle, _ = at.sizes
  arms = {'RS-Net': Arm({'distillation': 'full'}, about='32-bit floats')}
  claims = []
  for bits in BITS:
    arms[f'RS-Net {bits}'] = Arm({'distillation': 'full', 'model.quantise': bits}, about='learned levels')
    arms[f'I-Net {largest} {bits}'] = Arm({'resolutions': (largest,), 'model.quantise': bits}, about='one size alone')
    claims += [
      Claim(f'RS-Net {bits}@{largest}', f'I-Net {largest} {bits}@{largest}', 'RS-Net helps quantised ones too', RSNET),
      *above('RS-Net', f'RS-Net {bits}', at.sizes, 'bits cost accuracy', RSNET),
      Claim(f'RS-Net {bits}@{largest}', f'RS-Net@{middle}', 'fewer bits are above fewer pixels', OURS),
    ]
  about = 'LQ-Nets with bases that all sizes share. Multiply-adds are counted alike, whatever their bits.'
  return Study(f'Bits, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
