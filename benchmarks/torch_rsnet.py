"""RS-Net's training step in plain PyTorch, written from the paper's formulas for comparison, on a CPU or a GPU.

A network of tests/torch_models.py whose every BatchNorm is a list of them, one for each resolution (Wang et al.,
"Resolution Switchable Networks for Runtime Efficient Image Recognition", ECCV 2020).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class SwitchableNorm(nn.Module):
  """A BatchNorm for each resolution; `place` says which is in use."""

  def __init__(self, norm: nn.BatchNorm2d, resolutions: int):
    super().__init__()
    self.norms = nn.ModuleList(nn.BatchNorm2d(norm.num_features) for _ in range(resolutions))
    self.place = 0

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns x normalised by its batch."""
    return self.norms[self.place](x)


class RSNet(nn.Module):
  """The network at all resolutions, and the ensemble's weights."""

  def __init__(self, network: nn.Module, resolutions: int):
    super().__init__()
    self.network = network
    self.alpha = nn.Parameter(torch.ones(resolutions))
    found = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for name in found:
      parent, _, own = name.rpartition('.')
      parent = network.get_submodule(parent)
      setattr(parent, own, SwitchableNorm(getattr(parent, own), resolutions))
    self.switches = [module for module in network.modules() if isinstance(module, SwitchableNorm)]

  def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
    """Returns logits `[R, B, K]` of images `[B, 3, r, r]`, highest resolution first."""
    logits = []
    for place, x in enumerate(images):
      for switch in self.switches:
        switch.place = place
      logits.append(self.network(x))
    return torch.stack(logits)


def loss_of(logits: torch.Tensor, labels: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
  """Returns the sum of all cross-entropies, the ensemble's too, and of MRED's distillation.

  The ensemble and every larger resolution teach, weighted 2 / (R + 1); teachers are detached.
  """
  count = len(logits)
  ensemble = torch.einsum('r,rbk->bk', alpha.softmax(0), logits.detach())
  loss = F.cross_entropy(ensemble, labels) + sum(F.cross_entropy(z, labels) for z in logits)
  teachers = [ensemble.detach().log_softmax(-1), *logits.detach().log_softmax(-1)]
  for student, z in enumerate(logits.log_softmax(-1), 1):
    for teacher in teachers[:student]:
      loss = loss + 2 / (count + 1) * F.kl_div(z, teacher, reduction='batchmean', log_target=True)
  return loss


def stepper(
  network: nn.Module,
  batch: dict,
  *,
  rate: float,
  channels_last: bool,
  compiled: bool,
  resolutions: Sequence[int] = (),
  device: str = 'cpu',
  half: bool = False,
  flip: bool = False,
) -> Callable[[], torch.Tensor]:
  """Returns a function that takes a training step and returns its loss, which need not be there yet on a GPU.

  Args:
    network: Is changed.
    batch: `images`, uint8 `[B, r, r, 3]` for each resolution, or the largest alone, from which the step makes the
      others; and `label`. Images are divided by 255 in the step.
    rate: Learning rate of SGD with momentum 0.9 and weight decay 1e-4 on everything.
    channels_last: The layout of weights and images.
    compiled: By torch.compile.
    resolutions: Where the images are the largest alone.
    device: Where it runs.
    half: Autocast to bfloat16.
    flip: Each image left to right or not, drawn in the step.
  """
  layout = torch.channels_last if channels_last else torch.contiguous_format
  model = RSNet(network, len(resolutions or batch['images'])).to(device, memory_format=layout).train()
  fused = {'fused': True} if device == 'cuda' else {}
  optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4, **fused)
  labels = torch.from_numpy(np.asarray(batch['label'])).long().to(device)
  images = [torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2) for x in batch['images']]
  images = [x.contiguous(memory_format=layout) for x in images]
  forward = torch.compile(model) if compiled else model

  def inputs() -> list[torch.Tensor]:
    found = [x.float() / 255 for x in images]
    if resolutions:
      whole = found[0]
      found = [whole] + [F.interpolate(whole, (r, r), mode='bilinear', antialias=True) for r in resolutions[1:]]
    if flip:
      flips = (torch.rand(len(labels), device=device) < 0.5)[:, None, None, None]
      found = [torch.where(flips, x.flip(-1), x) for x in found]
    return [x.contiguous(memory_format=layout) for x in found]

  def take() -> torch.Tensor:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=half):
      logits = forward(inputs())
    loss = loss_of(logits.float(), labels, model.alpha)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return take
