"""RS-Net with ResNet-18 on ImageNet, the paper's recipe (Wang et al., ECCV 2020).

Command:  resjax train --config=rsnet_r18 --config.data.dir=DIR
Cost:     120 epochs of 1.28 million images at five resolutions, 5.0 G multiply-adds forward per image.
Result:   the paper reports top-1 73.1/72.2/71.1/68.7/64.1 % at 224/192/160/128/96; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import default


def get_config() -> ConfigDict:
  config = default.get_config()
  config.model.name = 'resnet18'
  config.epochs = 120.0
  config.batch_size = 256
  config.optimizer.learning_rate = 0.1
  # The paper's settings; the sound defaults are normalised inputs, shared flips and decay of kernels alone.
  config.data.normalize = 'unit'
  config.data.flip = 'independent'
  config.data.pyramid = 'host'
  config.optimizer.decay = 'all'
  config.optimizer.weight_decay = 1e-4
  return config
