"""Retargeting: a network of one resolution teaches itself the smaller ones, on your images, which need no labels.

Command:  resjax import mobilenet_v2.pth --model=mobilenetv2 --workdir=runs/pretrained
          resjax train --config=retarget --workdir=runs/retargeted --config.data.dir=photos
            [--config.data.eval_dir=labelled]
          photos/*.jpg is learned from; labelled/<class>/*.jpg is scored, a class by its name or number among the
          network's, or else how often each size says what the teacher says. BatchNorm of the smaller sizes alone, all
          else bit for bit as it was: --config=retarget:private.
          Another teacher of the same classes: --config.teacher.checkpoint=runs/other
Cost:     2 epochs of photos/*.jpg, 0.8 G multiply-adds forward per image at the five sizes, and the teacher's 0.3 G.
Result:   that of the photographs: MobileNetV2 at 224, 128 and 96 px, 240 steps of 8 out of 5,000 of them, three in five
          of the ten classes of most that it was scored on, gained 16.9 points at 96 px (standard deviation 0.3 over
          three seeds), 11.0 at 128 and 7.2 at 224, and nothing on other classes; docs/retarget.md. As it stands, five
          sizes and two epochs, the recipe was not run whole on photographs.
"""

from ml_collections import ConfigDict

from resjax.recipes import default

DEPTHS = ('all', 'private')


def get_config(depth: str = 'all') -> ConfigDict:
  """Returns the recipe.

  Args:
    depth: 'all': every parameter learns, at a low rate. 'private': scale and offset of the smaller sizes alone.
  """
  if depth not in DEPTHS:
    raise ValueError(f'--config=retarget:{depth}: expected one of {", ".join(DEPTHS)} after the colon')
  config = default.get_config()
  config.resolutions = (224, 192, 160, 128, 96)
  config.model.name = 'mobilenetv2'
  config.init.checkpoint = 'runs/pretrained'
  config.data.normalize = ''  # this and the next two as that network has them
  config.eval.interpolation = ''
  config.eval.crop_fraction = 0.0
  config.teacher.checkpoint = 'init'
  config.teacher.labels = False
  config.data.source = 'images'
  config.data.dir = 'photos'
  # What evaluation sees of an image: about its middle three quarters, as they are.
  config.data.crop_area = (0.3, 0.8)
  config.data.crop_ratio = (0.9, 1.1)
  config.batch_size = 16
  config.epochs = 2.0
  config.eval.every_epochs = 0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 3e-5
  config.optimizer.warmup_epochs = 0.2
  config.optimizer.weight_decay = 0.0
  config.optimizer.statistics = 'kept'
  if depth == 'private':
    config.optimizer.learning_rate = 1e-3
    config.optimizer.rates = (('shared/*', 0.0), ('private/224/*', 0.0))
  return config
