"""DRNet: trainings, estimators, budgets, the weight of the budget, and predictors of several sizes.

Command:  resjax study configs/studies/drnet.py
"""

import dataclasses

from configs.studies import scales
from configs.studies.scales import DRNET, above
from resjax.evidence import Arm, Claim, Study

LATER = 'no paper: asked after a look at some of these runs'
OURS = 'no paper: DRNet is compared with no cascade and with no static network of several sizes'

_FINE = {'drnet.frozen': False, 'drnet.learning_rate_factor': 1.0, 'optimizer.learning_rate': 0.02}
_BUDGETS = (0.2, 0.3, 0.7)
_LEARNED = ('fine-tuned', 'two stages', 'one stage')  # arms in which network and predictor learn together


def get_study(scale: str = 'digits') -> Study:
  """Returns the study."""
  at = scales.of(scale)
  largest, middle, _ = at.three
  recipe, fields = at.drnet

  def after(start: str, about: str = '', **changed: object) -> Arm:
    return Arm({**fields, **{name.replace('__', '.'): v for name, v in changed.items()}}, recipe=recipe, start=start,
               about=about)  # fmt: skip

  def alone(about: str, **changed: object) -> Arm:
    own = {'drnet.start': 'scratch', 'drnet.frozen': False, **{n.replace('__', '.'): v for n, v in changed.items()}}
    return Arm({**fields, **own}, recipe=recipe, times=at.from_scratch, about=about)

  arms = {
    'RS-Net': Arm({'distillation': 'full'}),
    'parallel': Arm({'distillation': 'none'}),
    'frozen': after('RS-Net', 'the predictor alone, on RS-Net'),
    'fine-tuned': Arm({**fields, **_FINE}, recipe=recipe, start='RS-Net', about='both, from RS-Net'),
    'two stages': Arm({**fields, **_FINE}, recipe=recipe, start='parallel', about="both, from parallel: the paper's"),
    'one stage': alone('both from scratch'),
    'parallel shared BN': Arm({'distillation': 'none', 'shared_batch_norm': True}),
    'two stages shared BN': Arm(
      {**fields, **_FINE, 'shared_batch_norm': True}, recipe=recipe, start='parallel shared BN', about='one BatchNorm'
    ),
    'supervised': after('RS-Net', 'learns the smallest size that is right', drnet__estimator='supervised'),
    'frozen routed': after('RS-Net', 'each image runs once', drnet__estimator='routed'),
    'one stage routed': alone('each image runs once', drnet__estimator='routed'),
    **{f'budget {budget}': after('RS-Net', drnet__budget=budget) for budget in _BUDGETS},
    **{f'eta {eta}': after('RS-Net', 'the budget weighs less', drnet__eta=eta) for eta in (0.1, 0.3)},
    'half the predictor': after('RS-Net', 'half its channels', drnet__predictor__width=0.5),
    'twice the predictor': after('RS-Net', 'twice its channels', drnet__predictor__width=2.0),
  }
  arms |= _by_statistics(arms)
  trained = ('frozen', 'fine-tuned', 'two stages', 'one stage')
  claims = [
    *(Claim(f'{name}@predictor', f'{name}@random', 'the predictor is above chance', DRNET) for name in trained),
    *(Claim(f'{name}@predictor', f'{name}@cascade', 'and above a cascade at its cost', OURS) for name in trained),
    *(Claim(f'{name}@predictor', f'RS-Net@{largest}', 'and above RS-Net, largest size', OURS) for name in trained),
    *(Claim(f'{name}@predictor', f'RS-Net@{middle}', 'and above RS-Net, middle size', OURS) for name in trained),
    Claim('two stages@predictor', 'one stage@predictor', 'two stages are above one', DRNET),
    Claim('two stages@predictor', 'two stages shared BN@predictor', 'resolution-aware BatchNorm helps', DRNET),
    Claim('frozen@predictor', 'frozen routed@predictor', 'gradients for every choice are above those of one', OURS),
    Claim('one stage@predictor', 'one stage routed@predictor', 'also from scratch', OURS),
    Claim('budget 0.7@predictor', 'budget 0.3@predictor', 'a larger budget is more accurate', DRNET),
    Claim('budget 0.3@predictor', 'budget 0.2@predictor', 'a larger budget is more accurate', DRNET),
    Claim('twice the predictor@predictor', 'half the predictor@predictor', 'a larger predictor is better', OURS),
    *(claim for name in _LEARNED for claim in _of_statistics(name, at.sizes)),
  ]
  about = 'A predictor that sends each image to a size, trained in several ways; chance, a cascade, and one size.'
  return Study(f'DRNet, {at.name}', at.recipe, arms, claims, at.fields, at.name, about=about)


def _by_statistics(arms: dict[str, Arm]) -> dict[str, Arm]:
  """The same trainings with statistics of all images, in training or afterwards."""
  found = {}
  for name in _LEARNED:
    arm, fields = arms[name], {**arms[name].fields, 'drnet.statistics': 'all'}
    found[f'{name} all counted'] = dataclasses.replace(arm, fields=fields, about='BatchNorm counts all images')
    about = 'statistics of 1,024 training images'
    found[f'{name} recalibrated'] = dataclasses.replace(arm, recalibrated=True, about=about)
  return found


def _of_statistics(name: str, sizes: tuple[int, ...]) -> list[Claim]:
  """What is asked of them."""
  counted, again = f'{name} all counted', f'{name} recalibrated'
  return [
    Claim(f'{name}@predictor', f'{counted}@predictor', 'BatchNorm is to count the images that were sent', DRNET),
    Claim(f'{counted}@predictor', f'{counted}@random', 'the predictor is above chance, all counted', LATER),
    Claim(f'{counted}@predictor', f'{counted}@cascade', 'and above a cascade at its cost', LATER),
    *above(counted, name, sizes, 'a size is better alone where all were counted', LATER),
    *above(again, name, sizes, 'a size has lost by statistics of its own images', LATER),
    Claim(f'{again}@cascade', f'{name}@cascade', 'and so has a cascade', LATER),
    Claim(f'{again}@predictor', f'{name}@predictor', 'and so has the predictor', LATER),
    Claim(f'{again}@predictor', f'{again}@cascade', 'the predictor is above a cascade then, too', LATER),
  ]
