"""Parallel training: ResNet-18 at five resolutions with private BatchNorm, without distillation.

Command:  python main.py --config=configs/parallel_r18.py --config.data.dir=DIR
Cost:     as configs/rsnet_r18.py.
Result:   the paper finds it between the I-Nets and RS-Net, and behind both at 96; not run here at this scale.
"""

from ml_collections import ConfigDict

from configs import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.distillation = 'none'
  return config
