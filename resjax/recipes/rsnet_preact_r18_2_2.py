"""RS-Net with a pre-activation ResNet-18 of 2-bit weights and activations on ImageNet (Wang et al., ECCV 2020).

Command:  resjax train --config=rsnet_preact_r18_2_2 --config.data.dir=DIR
Cost:     as of rsnet_r18_2_32, whose schedule it has.
Result:   the paper reports top-1 65.8/64.8/62.9/59.3/52.5 % at 224/192/160/128/96; not run here at this scale.

The network is that of He et al., "Identity Mappings in Deep Residual Networks"; whether each detail of the authors' is
the same is not known.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18_2_32


def get_config() -> ConfigDict:
  config = rsnet_r18_2_32.get_config()
  config.model.name = 'preact_resnet18'
  config.model.quantise = '2/2'
  return config
