"""A predictor that sends each digit to the input size it needs, on a laptop: RS-Net first, then the predictor.

Command:  resjax train --config=drnet_quickstart
Cost:     less than 4 minutes on two cores.
Result:   large digits go to 8 px, small ones to 32; about as accurate as 32 px for all, at half the multiply-adds.
"""

from ml_collections import ConfigDict

from resjax.recipes import quickstart


def get_config() -> ConfigDict:
  config = quickstart.get_config()
  config.method = 'drnet'
  config.drnet.start = 'pretrain'
  config.drnet.pretrain.epochs = config.epochs
  config.drnet.pretrain.learning_rate = config.optimizer.learning_rate
  config.drnet.pretrain.warmup_epochs = config.optimizer.warmup_epochs
  config.drnet.frozen = True
  config.drnet.estimator = 'dense'
  config.drnet.budget = 0.45 + 69_312 / 12_501_632  # 45 % of 32 px, and the predictor
  config.drnet.eta = 1.0
  config.drnet.learning_rate_factor = 1.0
  config.drnet.predictor.size = 16
  config.eval.calibration_split = 'calibration'
  config.epochs = 2.0
  config.eval.every_epochs = 0
  return config
