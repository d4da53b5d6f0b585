"""A slimmable MobileNetV2 on ImageNet (Yu et al., ICLR 2019), its widths at about the cost of RS-Net's resolutions.

Command:  resjax train --config=slimmable_mobilenetv2 --config.data.dir=DIR
          (in-place distillation, Yu and Huang, ICCV 2019: --config.distillation=inplace)
Ours:     schedule, rates and images are those of rsnet_mobilenetv2, so that width is all that differs; the paper has
          widths of 1.0, 0.75, 0.5 and 0.35
Cost:     150 epochs of 1.28 million images, 0.83 G multiply-adds forward per image: 301, 222, 151, 97 and 59 M.
Result:   the papers report top-1 70.5/68.9/64.4/59.7 % at 301/209/97/59 M, and 71.5/70.0/68.3/65.0/62.2 % at
          301/222/161/97/59 M for universally slimmable networks; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_mobilenetv2


def get_config() -> ConfigDict:
  config = rsnet_mobilenetv2.get_config()
  config.resolutions = (224,)
  config.widths = (1.0, 0.8, 0.6, 0.5, 0.35)
  config.distillation = 'none'
  return config
