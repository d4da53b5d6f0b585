"""Width instead of resolution on the scaled digits: one input size, three shares of the channels.

Command:  resjax train --config=slimmable_quickstart
          (in-place distillation: --config.distillation=inplace; distilled as RS-Net is: --config.distillation=full)
Cost:     as quickstart; an image 12.5, 3.2 and 0.9 M multiply-adds, where that has 12.5, 3.1 and 0.8 M at 32, 16, 8 px.
Result:   docs/width.md says how it is compared with quickstart.
"""

from ml_collections import ConfigDict

from resjax.recipes import quickstart


def get_config() -> ConfigDict:
  config = quickstart.get_config()
  config.resolutions = (32,)
  config.widths = (1.0, 0.5, 0.25)
  config.distillation = 'none'
  return config
