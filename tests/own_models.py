"""Networks that resjax does not ship, as users write them; named in configs as 'own_models:NAME'."""

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx


class Net(nn.Module):
  """Flax's own BatchNorm, and nothing that resjax asks for but `train`."""

  num_classes: int
  momentum: float = 0.9

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Conv(4, (3, 3), strides=2, name='look')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=self.momentum, name='calm')(x))
    return nn.Dense(self.num_classes, name='say')(x.mean((1, 2)))


class Full(nn.Module):
  """Takes every keyword, and a mask."""

  num_classes: int
  width: float = 1.0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images, *, train, mask=None):
    x = nn.Conv(round(4 * self.width), (3, 3), dtype=self.dtype)(images)
    norm = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name, dtype=self.dtype)
    x = nn.relu(norm(x, mask=None if mask is None else mask[:, None, None, None].astype(bool)))
    return nn.Dense(self.num_classes)(x.mean((1, 2)).astype(jnp.float32))


class Layered(nn.Module):
  """No BatchNorm."""

  num_classes: int

  @nn.compact
  def __call__(self, images, *, train):
    return nn.Dense(self.num_classes)(nn.LayerNorm()(images).mean((1, 2)))


class Dropping(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.BatchNorm(use_running_average=not train)(images).mean((1, 2))
    return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=not train)(x))


class Untrained(nn.Module):
  @nn.compact
  def __call__(self, images):
    return images.mean((1, 2))


def seven(width=1.0):
  """A factory that knows its number of classes, and computes a width."""
  return Full(num_classes=7, width=2 * width)


def needy(num_classes, depth):
  return Net(num_classes)


def stranger(num_classes):
  return {'classes': num_classes}


def untrained():
  return Untrained()


class Flat(nn.Module):
  """Has a weight for every pixel, and so one size."""

  num_classes: int

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.BatchNorm(use_running_average=not train)(images)
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Counting(nn.Module):
  """Keeps a collection of its own."""

  num_classes: int

  @nn.compact
  def __call__(self, images, *, train):
    self.variable('counter', 'calls', lambda: jnp.zeros(()))
    return Net(self.num_classes)(images, train=train)


class Elsewhere(nnx.Module):
  """Of Flax's other library."""

  def __init__(self, num_classes):
    self.num_classes = num_classes


number = 3


def failing(num_classes):
  """As a factory that misspells an attribute does."""
  return Net(num_classes, depth=3)


def speaking(num_classes):
  raise RuntimeError('no weights\nhere')


class Crooked(nn.Module):
  """Fails where it is run, not where it is made."""

  num_classes: int
  only: str = ''

  @nn.compact
  def __call__(self, images, *, train):
    if self.only in ('', 'training' if train else 'inference'):
      images = images @ jnp.ones((7, 7))
    return nn.Dense(self.num_classes)(nn.BatchNorm(use_running_average=not train)(images).mean((1, 2)))


def crooked_in_training(num_classes):
  return Crooked(num_classes, 'training')
