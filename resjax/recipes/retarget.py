"""Retarget."""

from ml_collections import ConfigDict

from resjax.recipes import default


def get_config(depth: str = 'all') -> ConfigDict:
  config = default.get_config()
  config.resolutions = (224, 192, 160, 128, 96)
  config.model.name = 'mobilenetv2'
  config.init.checkpoint = 'runs/pretrained'
  config.teacher.checkpoint = 'init'
  config.teacher.labels = False
  config.data.source = 'images'
  config.data.dir = 'photos'
  config.data.eval_dir = 'labelled'
  config.batch_size = 32
  config.eval.every_epochs = 0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-5
  config.optimizer.weight_decay = 0.0
  return config
