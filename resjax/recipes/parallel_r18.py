"""Parallel training: ResNet-18 at five resolutions with private BatchNorm, without distillation.

Command:  resjax train --config=parallel_r18 --config.data.dir=DIR
Cost:     as rsnet_r18.
Result:   the paper finds it between the I-Nets and RS-Net, and behind both at 96; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.distillation = 'none'
  return config
