"""Ensembles: of several sizes in one network, of branches of one size, and how they are taught.

Command:  resjax study configs/studies/ensembles.py
"""

from configs.studies import scales
from configs.studies.scales import IMPLIED, RSNET
from resjax.evidence import Arm, Claim, Study

OURS = 'no paper: is it worth what the other branches cost?'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, middle, _ = at.three
  count = len(at.sizes)
  # Branches of one size differ by their crops alone; those that saw the same would stay alike.
  crop = {'data.crop': 'random_resized', 'data.crop_area': at.crop_area, 'data.pyramid': 'host'}
  same, own = ({**crop, 'data.crops': crops} for crops in ('same', 'different'))
  arms = {
    'RS-Net': Arm({**same, 'distillation': 'full'}, about='several sizes, the same crops'),
    'RS-Net own crops': Arm({**own, 'distillation': 'full'}, about='several sizes, crops of their own'),
    'parallel own crops': Arm({**own, 'distillation': 'none'}, about='nobody teaches'),
    **{f'I-Net {size}': Arm({**same, 'resolutions': (size,)}, about='one size, one branch') for size in at.sizes},
    f'{count} I-Nets {largest}': Arm(together=(f'I-Net {largest}',) * count, about='trained apart, of one size'),
    'I-Nets of all sizes': Arm(together=tuple(f'I-Net {size}' for size in at.sizes), about='trained apart'),
    **{
      f'{count} of {size}': Arm({**own, 'resolutions': (size,) * count, 'distillation': 'full'}, about='of one size')
      for size in (largest, middle)
    },
    f'{count} of {largest} undistilled': Arm({**own, 'resolutions': (largest,) * count, 'distillation': 'none'}),
  }
  alike = f'{count} of {largest}'
  claims = [
    Claim('RS-Net@ensemble', f'RS-Net@{largest}', 'the ensemble of sizes is above its largest one', IMPLIED),
    Claim('RS-Net@ensemble', f'{alike}@ensemble', 'sizes are above branches of the largest one', RSNET),
    Claim('RS-Net own crops@ensemble', f'{alike}@ensemble', 'also with crops of their own', RSNET),
    Claim('RS-Net@ensemble', f'{count} of {middle}@ensemble', 'and above branches of the middle one', RSNET),
    Claim('parallel own crops@ensemble', f'{alike} undistilled@ensemble', 'also where nobody teaches', OURS),
    Claim(f'{alike}@ensemble', f'I-Net {largest}@{largest}', 'branches of one size are above one', OURS),
    Claim('RS-Net@ensemble', f'I-Net {largest}@{largest}', 'sizes are above one network of the largest', IMPLIED),
    Claim('RS-Net@ensemble', 'I-Nets of all sizes@ensemble', 'one network is above as many trained apart', OURS),
    Claim('RS-Net@ensemble', f'{count} I-Nets {largest}@ensemble', 'and above those of the largest size', OURS),
    Claim(f'{count} I-Nets {largest}@ensemble', f'{alike}@ensemble', 'networks are above branches of one', OURS),
    Claim(f'{count} I-Nets {largest}@ensemble', 'I-Nets of all sizes@ensemble', 'of the largest, not of all', OURS),
  ]
  about = 'What all branches say together, where they differ in their size and where they do not.'
  return Study(f'Ensembles, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
