"""DRNet with ResNet-50 on a hundred classes of ImageNet, on which the paper makes its ablations (Zhu et al., 2021).

Command:  resjax train --config=drnet_r50_imagenet100 --config.data.dir=DIR
          (another list: --config.data.classes=FILE.txt, a class in each line, as they are called in DIR)
          (without BatchNorm of each resolution: --config.private=none; a lower weight of the budget:
          --config.drnet.eta=0.1)
Ours:     the list. The paper does not publish its own; imagenet100.txt, beside this file, holds every tenth of the
          1,000 synsets in their order, from n01440764 on, so accuracies are of other classes. And as drnet_r50.
Cost:     70 and 100 epochs of about 128 thousand images, 7.7 G multiply-adds forward per image.
Result:   the paper reports, on its own list, top-1 81.4 % at 2.8 G for this budget, 80.3 % without BatchNorm of each
          resolution, and 78.5 % for ResNet-50 at 224; not run here.
"""

import pathlib

from ml_collections import ConfigDict

from resjax.recipes import drnet_r50


def get_config() -> ConfigDict:
  config = drnet_r50.get_config()
  config.data.classes = tuple(pathlib.Path(__file__).with_name('imagenet100.txt').read_text().split())
  config.model.num_classes = 100
  return config
