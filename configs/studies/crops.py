"""One random crop of an image for all sizes, or another one for each; with distillation and without.

Command:  resjax study configs/studies/crops.py
"""

from configs.studies import scales
from configs.studies.scales import RSNET, above
from resjax.evidence import Arm, Study

UNTAUGHT = 'no paper: is it the distillation that needs the same crop?'


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  crop = {'data.crop': 'random_resized', 'data.crop_area': at.crop_area, 'data.pyramid': 'host'}
  arms = {
    f'{crops} crops{name}': Arm({**crop, 'data.crops': crops, 'distillation': distillation})
    for name, distillation in (('', 'full'), (' undistilled', 'none'))
    for crops in ('same', 'different')
  }
  claims = [
    *above('same crops', 'different crops', at.sizes, 'the same crop for all sizes is better', RSNET),
    *above('same crops undistilled', 'different crops undistilled', at.sizes, 'also without a teacher', UNTAUGHT),
  ]
  about = 'Every size sees the same crop of an image, or draws its own.'
  return Study(f'Crops, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
