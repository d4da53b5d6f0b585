"""Who teaches: nobody, the ensemble, the ensemble and every larger size; and whether a longer training changes that.

Command:  resjax study configs/studies/distillation.py
"""

from configs.studies import scales
from configs.studies.scales import IMPLIED, RSNET, above
from resjax.evidence import Arm, Claim, Study

LONGER = 'no paper: is it that the training was too short?'
WEIGHT = 'no paper: is it that the terms weigh too much?'
SMALLEST = 'no paper: is it that the smallest size drags the others down?'

WEIGHTS = (0.1, 0.3)  # of the distillation; 1 is 'full', 0 is 'none'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, middle, smallest = at.three
  larger = (largest, (largest + middle) // 2, middle)
  short = f'without {smallest} px'
  arms = {name: Arm({'distillation': name}) for name in ('none', 'vanilla', 'full')}
  arms |= {
    'without ensemble': Arm({'distillation': 'without_ensemble'}, about='every larger size teaches, the ensemble not'),
    'without larger': Arm({'distillation': 'without_larger'}, about='full, but the larger sizes do not teach'),
    'without smaller': Arm({'distillation': 'without_smaller'}, about='full, the largest size and the ensemble teach'),
  }
  arms |= {
    f'{name} 4 times as long': Arm({'distillation': name}, times=4.0, about='four times the epochs')
    for name in ('none', 'full')
  }
  arms |= {
    f'full weight {weight}': Arm({'distillation': 'full', 'distillation_weight': weight}, about='its terms weigh less')
    for weight in WEIGHTS
  }
  arms |= {
    f'{name} {short}': Arm({'distillation': name, 'resolutions': larger}, about='three sizes, but larger ones')
    for name in ('none', 'full')
  }
  claims = [
    *above('vanilla', 'none', at.sizes, 'the ensemble as a teacher helps', RSNET),
    *above('full', 'vanilla', at.sizes, 'and the larger sizes as teachers help more', RSNET),
    *above('full', 'none', at.sizes, 'full distillation helps at every size', RSNET),
    *above('full', 'without ensemble', at.sizes, 'the ensemble as a teacher helps', IMPLIED),
    *above('full', 'without larger', at.sizes, 'the larger sizes as teachers help', IMPLIED),
    *above('full', 'without smaller', at.sizes[-1:], 'so do those between', IMPLIED),
    *above('full 4 times as long', 'none 4 times as long', at.sizes, 'also where training is longer', LONGER),
    Claim('full@ensemble', f'full@{largest}', 'the ensemble, which teaches, is above the largest size', IMPLIED),
    Claim('none@ensemble', f'none@{largest}', 'and so it is without distillation', LONGER),
    Claim('full 4 times as long@ensemble', f'full 4 times as long@{largest}', 'also where training is longer', LONGER),
    Claim(f'full {short}@ensemble', f'full {short}@{largest}', 'also without the smallest size', SMALLEST),
    *above(f'full {short}', f'none {short}', larger, 'full distillation helps sizes that are all large', SMALLEST),
    *(
      claim
      for weight in WEIGHTS
      for claim in (
        *above(f'full weight {weight}', 'none', at.sizes, 'distillation of less weight helps', WEIGHT),
        *above(f'full weight {weight}', 'full', at.sizes, 'less weight is above the weight of the paper', WEIGHT),
      )
    ),
  ]
  about = 'The terms of the distillation loss, one after the other.'
  return Study(f'Distillation, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
