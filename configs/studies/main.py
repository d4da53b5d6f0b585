"""The main table of RS-Net: one network for each size, all sizes in parallel, both distillations, shared BatchNorm.

Command:  resjax study configs/studies/main.py
          resjax study configs/studies/main.py:photographs --data.dir=DIR
"""

from configs.studies import scales
from configs.studies.scales import IMPLIED, RSNET, above
from resjax.evidence import Arm, Claim, Study

OURS = 'no paper: the same question at equal compute'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, smallest = at.sizes[0], at.sizes[-1]
  arms = {
    'RS-Net': Arm({'distillation': 'full'}, about='dense top-down distillation and ensemble: the published models'),
    'parallel': Arm({'distillation': 'none'}, about='all sizes, private BatchNorm, no distillation'),
    **{f'I-Net {size}': Arm({'resolutions': (size,)}, about='one size alone, equal epochs') for size in at.sizes},
    'RS-Net vanilla': Arm({'distillation': 'vanilla'}, about='the ensemble alone teaches'),
    'RS-Net shared BN': Arm({'distillation': 'full', 'shared_batch_norm': True}, about='one BatchNorm for all sizes'),
    **{
      f'I-Net {size} equal compute': Arm(
        {'resolutions': (size,)}, times=at.ratio(size), about='one size alone, the multiply-adds of all sizes'
      )
      for size in at.sizes
    },
  }
  claims = [
    *above('RS-Net', 'I-Net {}', at.sizes, 'RS-Net is above individually trained networks at every size', RSNET),
    *above('RS-Net', 'I-Net {} equal compute', at.sizes, 'and also where those are trained as long in all', OURS),
    *above('RS-Net', 'parallel', at.sizes, 'distillation helps at every size', RSNET),
    *above('RS-Net', 'RS-Net vanilla', at.sizes, 'full distillation is above vanilla', RSNET),
    *above('RS-Net vanilla', 'parallel', at.sizes, 'the ensemble as a teacher helps', RSNET),
    *above('parallel', 'I-Net {}', at.sizes[:-1], 'parallel training helps the larger sizes', RSNET),
    Claim(f'I-Net {smallest}@{smallest}', f'parallel@{smallest}', 'and costs the smallest one', RSNET),
    *above('RS-Net', 'RS-Net shared BN', (largest, smallest), 'shared BatchNorm hurts most at both ends', RSNET),
    Claim('RS-Net@ensemble', f'RS-Net@{largest}', 'the ensemble, which teaches, is above the largest size', IMPLIED),
  ]
  about = 'One network for all sizes against one for each, and what distillation and private BatchNorm add.'
  return Study(f'Main table, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
