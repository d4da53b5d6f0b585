"""DRNet with MobileNetV2 on ImageNet in two stages (after Zhu et al., NeurIPS 2021), with our small predictor.

Command:  resjax train --config=drnet_mobilenetv2 --config.data.dir=DIR
          (the other candidates of the paper: --config.resolutions='(224,168,112)' --config.drnet.budget=0.7)
          (the paper's predictor: --config.drnet.predictor.name=mobile --config.drnet.budget=0.8743)
Cost:     70 and 100 epochs of 1.28 million images, 0.75 G multiply-adds forward per image; the predictor adds 1.1 M.
          (Epochs as for ResNet-50: of MobileNetV2 the paper says only that it follows MobileNetV2's own recipe. Rate
          and weight decay are those of RS-Net's MobileNetV2; the budget is ours.)
Result:   the paper reports top-1 72.7 % at 268 M, its predictor included; not run here at this scale.
"""

from ml_collections import ConfigDict

from resjax.recipes import drnet_r50


def get_config() -> ConfigDict:
  config = drnet_r50.get_config()
  config.resolutions = (224, 196, 168)
  config.model.name = 'mobilenetv2'
  config.drnet.budget = 0.85 + 1_106_112 / 300_774_272  # 85 % of 224 px, and the predictor
  config.drnet.predictor.width = 1.0
  config.drnet.pretrain.learning_rate = 0.05
  config.optimizer.learning_rate = 0.05
  config.optimizer.weight_decay = 4e-5
  return config
