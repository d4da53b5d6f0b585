"""Pruning: fewer filters against fewer pixels at equal multiply-adds, the same for all images or chosen for each; both.

Command:  resjax study configs/studies/pruning.py
"""

from configs.studies import scales
from resjax.evidence import Arm, Claim, Study

OURS = 'no paper: fewer filters or fewer pixels?'
LI = 'Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017'

RATIOS = (0.3, 0.5)
_LONGER = 1.5  # epochs of what is not pruned: those before and after


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, _, smallest = at.three
  few, many = (at.macs(largest, prune=ratio) for ratio in RATIOS)
  sizes = (at.size_of(few), at.size_of(many))
  recipe, fields = at.drnet
  tuned = {'distillation': 'full', 'optimizer.learning_rate': 0.02}

  def chosen(start: str, about: str, budget: float) -> Arm:
    return Arm({**fields, 'drnet.budget': round(budget, 3)}, recipe=recipe, start=start, about=about)

  arms = {
    'RS-Net': Arm({'distillation': 'full'}, about='what is pruned'),
    'RS-Net longer': Arm({'distillation': 'full'}, times=_LONGER, about='as many epochs as those that are pruned'),
    'smaller sizes': Arm(
      {'distillation': 'full', 'resolutions': (*sizes, smallest)}, times=_LONGER, about='as dear as those pruned'
    ),
    **{
      f'pruned {ratio}': Arm(tuned, times=_LONGER - 1, start='RS-Net', prune=ratio, about='and trained on')
      for ratio in RATIOS
    },
    'DRNet': chosen('RS-Net longer', f'as dear as pruned {RATIOS[1]}', many / at.macs(largest)),
    'both': chosen(f'pruned {RATIOS[0]}', f'DRNet on it, as dear as pruned {RATIOS[1]}', many / few),
  }
  claims = [
    *(
      Claim(f'RS-Net longer@{size}', f'pruned {ratio}@{size}', 'filters that go cost accuracy', LI)
      for ratio in RATIOS
      for size in at.sizes
    ),
    *(
      Claim(f'pruned {ratio}@{largest}', f'smaller sizes@{size}', 'fewer filters are above fewer pixels', OURS)
      for ratio, size in zip(RATIOS, sizes, strict=True)
    ),
    Claim('DRNet@predictor', f'pruned {RATIOS[1]}@{largest}', 'pixels by image are above fewer filters', OURS),
    Claim('DRNet@predictor', f'smaller sizes@{sizes[1]}', 'and above fewer pixels for all', OURS),
    Claim('both@predictor', 'DRNet@predictor', 'some of both is above pixels by image alone', OURS),
    Claim('both@predictor', f'pruned {RATIOS[1]}@{largest}', 'and above fewer filters alone', OURS),
    Claim('both@predictor', 'both@cascade', 'the predictor is above a cascade at its cost', OURS),
  ]
  about = 'Filters of the smallest weights are taken out of the same network, which is then trained on.'
  return Study(f'Pruning, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)
