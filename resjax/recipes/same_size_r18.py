"""Five branches of one size: ResNet-18 at 224 px five times, with private BatchNorm, an ensemble and its distillation.

What RS-Net gains by several sizes, and what by several branches alone: everything but the sizes is as in rsnet_r18.

Command:  resjax train --config=same_size_r18 --config.data.dir=DIR
          (one BatchNorm for all: --config.private=none; another size: --config.resolutions='(160,160,160,160,160)';
          a crop of its own for each: --config.data.crops=different)
Cost:     120 epochs of 1.28 million images, 9.1 G multiply-adds forward per image.
Result:   not run here at this scale.
Note:     branches differ by their flips (drawn for each), or crops. Where all see the same, with data.flip=shared, sets
          that start alike stay alike.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.resolutions = (224,) * 5
  return config
