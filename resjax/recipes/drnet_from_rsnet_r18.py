"""A predictor on top of a finished RS-Net: ResNet-18 on ImageNet, the network left as it is.

Command:  resjax train --config=rsnet_r18 --config.data.dir=DIR
          resjax train --config=drnet_from_rsnet_r18 --config.data.dir=DIR
          (another place: --config.drnet.checkpoint=WORKDIR; to train the network on: --config.drnet.frozen=False)
Cost:     10 epochs of 1.28 million images, 3.1 G multiply-adds forward per image, backward for the predictor alone.
Result:   not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import rsnet_r18


def get_config() -> ConfigDict:
  config = rsnet_r18.get_config()
  config.method = 'drnet'
  config.resolutions = (224, 160, 96)
  config.drnet.start = 'checkpoint'
  config.drnet.checkpoint = 'runs/rsnet_r18'
  config.drnet.frozen = True
  config.drnet.budget = 0.6 + 8_626_752 / 1_814_073_344  # 60 % of 224 px, and the predictor
  config.drnet.learning_rate_factor = 1.0
  config.drnet.predictor.width = 3.0
  config.data.flip = 'shared'
  config.data.pyramid = 'device'
  config.epochs = 10.0
  config.optimizer.warmup_epochs = 1.0
  config.optimizer.decay = 'kernels'
  return config
