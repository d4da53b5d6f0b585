"""RS-Net with ResNet-18 of 2-bit weights on ImageNet (Wang et al., ECCV 2020, with the quantiser of LQ-Nets).

Command:  resjax train --config=rsnet_r18_2_32 --config.data.dir=DIR
Cost:     120 epochs of 1.28 million images at five resolutions, 5.0 G multiply-adds forward per image, in float.
Result:   the paper reports top-1 68.8/67.6/66.0/63.1/56.6 % at 224/192/160/128/96; not run here at this scale.

The schedule is that of the authors' TensorFlow code, whose epochs have 5,000 steps; ours have all whole batches, 5,004.
Its order of the five sizes' updates of a basis within a step is not stated; here the largest comes first.
"""

from ml_collections import ConfigDict

from resjax.recipes import default


def get_config() -> ConfigDict:
  config = default.get_config()
  config.model.name = 'resnet18'
  config.model.quantise = '2/32'
  config.epochs = 120.0
  config.batch_size = 256
  config.data.pyramid = 'host'
  config.optimizer.learning_rate = 0.1
  config.optimizer.schedule = 'step'
  config.optimizer.step_at = (30, 60, 85, 95, 105)
  config.optimizer.step_factor = 0.1
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-5
  return config
