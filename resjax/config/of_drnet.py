"""What fields of DRNet say of each other, checked before a run begins."""

from ml_collections import ConfigDict

from resjax.config.stored import flatten
from resjax.models.predictor import PREDICTORS


def validate(config: ConfigDict) -> None:
  """Raises ValueError, as of `checks.validate`, if fields of DRNet contradict each other."""
  options, resolutions = config.drnet, tuple(config.resolutions)
  if len(resolutions) * len(config.widths) < 2:
    raise ValueError(f"config.resolutions: got {resolutions}, expected two or more to choose from with method='drnet'")
  if len(set(resolutions)) != len(resolutions):
    raise ValueError(f"config.resolutions: got {resolutions}, expected distinct ones with method='drnet'")
  if config.data.crops != 'same':
    raise ValueError(f"config.data.crops: got {config.data.crops!r}, expected 'same' with method='drnet'")
  if config.init.checkpoint and options.start != 'pretrain':
    raise ValueError(
      f'config.init.checkpoint: got {config.init.checkpoint!r} with drnet.start={options.start!r}, expected '
      "drnet.start='pretrain', or drnet.checkpoint"
    )
  for field in ('rates', 'freeze'):
    if config.optimizer[field]:
      raise ValueError(
        f"config.optimizer.{field}: got {config.optimizer[field]}, expected () with method='drnet' (it has "
        'drnet.frozen and drnet.learning_rate_factor)'
      )
  if config.optimizer.statistics != 'batch':
    raise ValueError(
      f"config.optimizer.statistics: got {config.optimizer.statistics!r}, expected 'batch' with method='drnet' (it has "
      'drnet.frozen)'
    )
  if options.tau_end > options.tau:
    raise ValueError(f'config.drnet.tau_end: got {options.tau_end}, expected at most tau = {options.tau}')
  size = options.predictor.size or PREDICTORS[options.predictor.name][1]
  if size > resolutions[0]:
    raise ValueError(
      f'config.drnet.predictor.size: got {size}, expected at most {resolutions[0]}, the largest resolution'
    )
  if (options.start == 'checkpoint') != bool(options.checkpoint):
    raise ValueError(
      f'config.drnet.checkpoint: got {options.checkpoint!r}, expected the workdir of an RS-Net run with '
      "drnet.start='checkpoint', and nothing otherwise"
    )
  if options.start == 'scratch' and options.frozen:
    raise ValueError(
      "config.drnet.frozen: got True, expected False with drnet.start='scratch' (nothing is trained yet)"
    )
  if options.statistics == 'all' and (options.estimator != 'dense' or options.frozen):
    got = 'drnet.frozen=True' if options.frozen else f'drnet.estimator={options.estimator!r}'
    raise ValueError(
      f"config.drnet.statistics: got 'all' with {got}, expected 'sent' (or a network that 'dense' trains)"
    )
  if options.estimator == 'supervised' and not options.frozen:
    raise ValueError("config.drnet.frozen: got False, expected True with drnet.estimator='supervised'")
  for field, off in (('data.mixup', 0), ('data.cutmix', 0), ('class_weights', ())):
    value = flatten(config)[field]
    if options.estimator == 'supervised' and value != off:
      raise ValueError(
        f"config.{field}: got {value}, expected {off} with drnet.estimator='supervised' (it learns from what is right)"
      )
