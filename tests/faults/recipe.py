"""A run for the fault tests: scaled digits, a tiny network, every draw that depends on the position in the data."""

from configs import default


def get_config():
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.name = 'resnet_small'
  config.model.num_classes = 10
  config.model.width = 0.25
  config.data.source = 'scaled_digits'
  config.data.name = ''
  config.data.eval_split = 'test'
  config.data.size = 640
  config.data.flip = 'independent'
  config.data.threads = 1
  config.eval.batch_size = 64
  config.eval.every_epochs = 0
  config.eval.crop_fraction = 1.0
  config.batch_size = 32  # 20 steps an epoch
  config.epochs = 10.0
  config.optimizer.learning_rate = 0.02
  config.checkpoint.every_epochs = 0.25
  config.log_steps = 1
  return config
