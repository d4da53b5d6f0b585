"""Multiply-adds and parameters: known networks to the last digit, primitives by hand."""

import json
import pathlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import macs, models

COUNTS = json.loads((pathlib.Path(__file__).parent / 'reference' / 'counts.json').read_text())
QUICK = [('resnet18', '224'), ('resnet18', '176'), ('resnet18', '96'), ('mobilenetv2', '224')]
QUICK += [('mobilenetv2', '168'), ('resnet34', '112'), ('resnet50', '168')]
RESNET10 = models.ResNet(num_classes=3, stages=(1, 1, 1, 1))


def parameters(model):
  """Of the whole network, and of its BatchNorms."""
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  norms = {path[:-1] for path in flax.traverse_util.flatten_dict(variables['batch_stats'])}
  sizes = {p: leaf.size for p, leaf in flax.traverse_util.flatten_dict(variables['params']).items()}
  return sum(sizes.values()), sum(size for path, size in sizes.items() if path[:-1] in norms)


def spec(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


# --- networks ---


@pytest.mark.parametrize('name', [name for name in COUNTS if name in models.MODELS])
def test_parameters(name):
  whole, norms = parameters(models.create(name, num_classes=1000))
  assert whole == COUNTS[name]['params']
  assert norms == COUNTS[name]['batchnorm_params_per_set']
  assert whole + 4 * norms == COUNTS[name]['params_5_sets']


@pytest.mark.parametrize(
  ('name', 'resolution', 'count'),
  [
    pytest.param(name, int(resolution), count, marks=[] if quick else pytest.mark.slow)
    for name in COUNTS
    if name in models.MODELS
    for resolution, count in COUNTS[name]['macs'].items()
    for quick in [(name, resolution) in QUICK]
  ],
)
def test_multiply_adds(name, resolution, count):
  assert macs.of_model(models.create(name, num_classes=1000), resolution) == count


def test_predictor():
  expected = COUNTS['predictor_resnet10_3_choices']
  assert parameters(RESNET10)[0] == expected['params']
  assert {str(r): macs.of_model(RESNET10, r) for r in (128, 64)} == expected['macs']


@pytest.mark.parametrize(
  ('name', 'params', 'count'),
  [
    pytest.param('resnet152', 60_192_808, 11_513_626_624, marks=pytest.mark.slow),
    ('resnext50_32x4d', 25_028_904, 4_230_479_872),
  ],
)
def test_published_sizes(name, params, count):
  model = models.create(name, num_classes=1000)
  assert parameters(model)[0] == params
  assert macs.of_model(model, 224) == count


@pytest.mark.parametrize(('name', 'resolution'), [('resnet_small', 9), ('resnext50_32x4d', 77), ('mobilenetv2', 77)])
def test_against_torch(name, resolution):
  torch = pytest.importorskip('torch')
  import torch_models

  counts = []

  def hook(module, inputs, output):
    counts.append(output.numel() * module.weight[0].numel())

  twin = torch_models.create(name, 10).eval()
  for module in twin.modules():
    if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
      module.register_forward_hook(hook)
  with torch.no_grad():
    twin(torch.zeros(1, 3, resolution, resolution))
  assert macs.of_model(models.create(name, num_classes=10), resolution) == sum(counts)


def test_network_that_is_not_ours():
  class Patches(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
      x = nn.Conv(8, (4, 4), strides=4, padding='VALID')(images).reshape(-1, 16, 8)
      x = jax.nn.softmax(nn.Dense(8)(x) @ x.swapaxes(1, 2)) @ x
      return nn.Dense(2)(x.mean(1))

  patches = 16 * 8 * (4 * 4 * 3)
  attention = 16 * 8 * 8 + 2 * 16 * 16 * 8
  assert macs.of_model(Patches(), 16) == patches + attention + 8 * 2


@pytest.mark.parametrize('resolution', [0, -1, 224.0, '224', None])
def test_wrong_resolution(resolution):
  with pytest.raises(ValueError, match=r'^resolution: got .*, expected a positive integer or'):
    macs.of_model(RESNET10, resolution)


# --- primitives ---


def conv(**options):
  options = {'window_strides': (1, 1), 'padding': 'SAME', **options}
  return lambda x, k: jax.lax.conv_general_dilated(x, k, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options)


@pytest.mark.parametrize(
  ('options', 'kernel', 'count'),
  [
    ({}, (3, 3, 4, 6), 2 * 8 * 8 * 6 * 4 * 9),
    ({'window_strides': (2, 2)}, (3, 3, 4, 6), 2 * 4 * 4 * 6 * 4 * 9),
    ({'feature_group_count': 2}, (3, 3, 2, 6), 2 * 8 * 8 * 6 * 2 * 9),
    ({'feature_group_count': 4}, (5, 5, 1, 4), 2 * 8 * 8 * 4 * 25),
    ({'padding': 'VALID', 'rhs_dilation': (2, 2)}, (3, 3, 4, 6), 2 * 4 * 4 * 6 * 4 * 9),
  ],
  ids=['plain', 'strided', 'grouped', 'depthwise', 'dilated'],
)
def test_convolutions(options, kernel, count):
  assert macs.count(conv(**options), spec(2, 8, 8, 4), spec(*kernel)) == count


@pytest.mark.parametrize(
  ('formula', 'shapes', 'count'),
  [
    ('ij,jk->ik', [(3, 5), (5, 7)], 3 * 5 * 7),
    ('bij,bjk->bik', [(2, 3, 5), (2, 5, 7)], 2 * 3 * 5 * 7),
    ('ijk,jkl->il', [(2, 3, 5), (3, 5, 7)], 2 * 3 * 5 * 7),
    ('i,i->', [(9,), (9,)], 9),
  ],
)
def test_products(formula, shapes, count):
  assert macs.count(lambda a, b: jnp.einsum(formula, a, b), *(spec(*s) for s in shapes)) == count


def matmul(x):
  return x @ x  # 4 * 4 * 4 = 64


@jax.custom_jvp
def custom(x):
  return matmul(x)


custom.defjvps(lambda tangent, _, x: tangent)


@jax.custom_vjp
def custom_reverse(x):
  return matmul(x)


custom_reverse.defvjp(lambda x: (custom_reverse(x), None), lambda _, g: (g,))


@pytest.mark.parametrize(
  ('fn', 'count'),
  [
    (jax.jit(lambda x: jax.jit(matmul)(x) @ x), 2),
    (jax.checkpoint(matmul), 1),
    (custom, 1),
    (custom_reverse, 1),
    (lambda x: jax.lax.scan(lambda c, _: (matmul(c), None), x, length=5)[0], 5),
    (lambda x: jax.lax.fori_loop(0, 3, lambda i, c: jax.lax.fori_loop(0, 2, lambda i, c: c @ c, c), x), 6),
    (lambda x: jax.lax.cond(x.sum() > 0, matmul, lambda x: x @ x @ x, x), 2),
    (lambda x: jax.lax.switch(1, [lambda x: x, matmul, lambda x: x + 1], x), 1),
    (jax.vmap(lambda row: row @ row), 4 / 64 * 4),
    (jax.grad(lambda x: matmul(x).sum()), 3),
    (lambda x: jnp.tanh(x * x).sum() + x.mean(), 0),
    (lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x) @ x, 1),
  ],
)
def test_nested(fn, count):
  assert macs.count(fn, spec(4, 4)) == 64 * count


def test_counting_allocates_nothing():
  assert macs.count(matmul, spec(10**6, 10**6)) == 10**18


def test_unknown_length():
  def loop(x):
    return jax.lax.while_loop(lambda c: c.sum() < 9, matmul, x)

  with pytest.raises(ValueError, match=r'^cannot count the multiply-adds inside a while$'):
    macs.count(loop, spec(4, 4))
  mesh = jax.make_mesh((1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  sharded = jax.shard_map(matmul, mesh=mesh, in_specs=jax.P(), out_specs=jax.P())
  with pytest.raises(ValueError, match=r'inside a shard_map$'):
    macs.count(sharded, np.zeros((4, 4), np.float32))


# --- what was traced ---

SEEN = []


class Seen(nn.Module):
  """Says when it is traced."""

  classes: int = 3
  table: object = None

  @nn.compact
  def __call__(self, images, train):
    SEEN.append(self.classes)
    return nn.Dense(self.classes)(images.mean((1, 2)))


def test_a_module_is_traced_once_for_its_attributes_and_shapes_and_a_function_each_time():
  def traces(model, size=8, dtype=np.float32):
    variables = {'params': {'Dense_0': {'kernel': np.zeros((3, 3), dtype), 'bias': np.zeros(3, dtype)}}}
    SEEN.clear()
    found = macs.traced(model, variables, spec(1, size, size, 3))
    assert (found.logits.shape, found.macs) == ((1, 3), 9)
    return len(SEEN)

  assert [traces(Seen()), traces(Seen()), traces(Seen(), 16), traces(Seen(), 16)] == [1, 0, 1, 0]
  assert [traces(Seen(), dtype=jnp.bfloat16), traces(Seen(table=1)), traces(Seen())] == [1, 1, 0]
  assert [traces(Seen(table=np.ones(2))), traces(Seen(table=np.ones(2)))] == [1, 1]  # which has no hash
  function = lambda variables, images, train: (Seen().apply(variables, images, train), variables)
  assert [traces(function), traces(function)] == [1, 1]
  with pytest.raises(flax.errors.ScopeParamShapeError):  # and what fails, fails again
    traces(Seen(classes=4))
  with pytest.raises(flax.errors.ScopeParamShapeError):
    traces(Seen(classes=4))
