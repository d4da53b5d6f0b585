"""An I-Net: ResNet-18 on ImageNet trained at one resolution alone, what RS-Net is compared with.

Command:  resjax train --config=inet_r18 --config.resolutions='(160,)' --workdir=runs/inet_r18_160
Cost:     120 epochs of 1.28 million images, 1.8 G multiply-adds forward per image at 224.
Result:   the paper's figure shows top-1 71.0/69.8/68.5/66.3/62.6 % at 224/192/160/128/96, read off it to about 0.03
          points; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.resolutions = (224,)
  return config
