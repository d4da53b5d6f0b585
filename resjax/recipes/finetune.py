"""Fine-tuning: a network that was trained, or imported, goes on with your photographs, its head at ten times the rate.

Command:  resjax train --config=finetune --workdir=runs/mine --config.init.checkpoint=runs/pretrained
            --config.data.dir=photos --config.model.num_classes=6
          (another network: --config.model.name=mobilenetv2; the first stage as it is:
          --config.optimizer.freeze="('conv1/*', 'bn1/*', 'stage1_*')")
          (more: docs/finetuning.md)
Cost:     3 epochs of photos/train/<class>/ at three resolutions, 3.1 G multiply-adds forward per image.
Result:   that of the network and the photographs; a few hundred images want more epochs.
"""

from ml_collections import ConfigDict

from resjax.recipes import default


def get_config() -> ConfigDict:
  config = default.get_config()
  config.resolutions = (224, 160, 96)
  config.init.checkpoint = 'runs/pretrained'
  config.data.normalize = ''  # this and the next two as that network has them
  config.eval.interpolation = ''
  config.eval.crop_fraction = 0.0
  config.data.source = 'folder'
  config.data.eval_split = 'val'
  config.data.crop_area = (0.25, 1.0)
  config.eval.mistakes = 25
  config.batch_size = 32
  config.epochs = 3.0
  config.optimizer.name = 'adamw'  # with SGD the rate must be found for each network: 0.002 lets MobileNetV2 diverge
  config.optimizer.learning_rate = 3e-4
  config.optimizer.warmup_epochs = 0.5
  config.optimizer.rates = (('head/*', 10.0),)
  return config
