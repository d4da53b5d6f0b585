"""RS-Net with ResNet-50 (v1.5) on ImageNet, the paper's recipe (Wang et al., ECCV 2020).

Command:  resjax train --config=rsnet_r50 --config.data.dir=DIR
Cost:     120 epochs of 1.28 million images at five resolutions, 11.3 G multiply-adds forward per image.
Result:   the paper reports top-1 79.3/78.8/77.9/76.3/72.7 % at 224/192/160/128/96; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.model.name = 'resnet50'
  return config
