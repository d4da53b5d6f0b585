"""RS-Net with MobileNetV2 on ImageNet, the paper's recipe (Wang et al., ECCV 2020).

Command:  resjax train --config=rsnet_mobilenetv2 --config.data.dir=DIR
Cost:     150 epochs of 1.28 million images at five resolutions, 0.83 G multiply-adds forward per image.
Result:   the paper reports top-1 73.0/72.2/71.1/68.8/63.9 % at 224/192/160/128/96; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.model.name = 'mobilenetv2'
  config.epochs = 150.0
  config.optimizer.learning_rate = 0.05
  config.optimizer.weight_decay = 4e-5
  return config
