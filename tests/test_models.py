"""What the networks promise besides torch's numbers: names, types, options, masks, errors."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from configs import quickstart
from resjax import config as configuration
from resjax import models

K = 5
TINY = {
  'basic': {'name': 'resnet_small', 'stages': (1, 1), 'width': 0.5},
  'bottleneck': {'name': 'resnet50', 'stages': (2, 1), 'width': 0.125},
  'inverted': {'name': 'mobilenetv2', 'width': 0.25},
}


def tiny(kind='basic', **options):
  return models.create(**{'num_classes': K, **TINY[kind], **options})


def random_images(batch, size=16, seed=0):
  return jax.random.normal(jax.random.key(seed), (batch, size, size, 3))


@functools.cache
def init(model, *only):
  """The initial variables, or the part of `params` under these names: the rest is not computed."""

  def part(key):
    variables = model.init(key, random_images(1), train=False)
    return {name: variables['params'][name] for name in only} if only else variables

  return jax.jit(part)(jax.random.key(1))


def shapes(model):
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def paths(tree):
  return {'/'.join(path): leaf for path, leaf in flax.traverse_util.flatten_dict(tree).items()}


def assert_close(ours, theirs):
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, ours, theirs)


@functools.partial(jax.jit, static_argnums=0)
def train(model, variables, images, mask=None):
  return model.apply(variables, images, train=True, mask=mask, mutable=['batch_stats'])


@pytest.mark.parametrize('name', ['resnet18', 'resnext50_32x4d', 'mobilenetv2', 'resnet_small'])
def test_types_and_shapes(name):
  model = models.create(name, num_classes=K, dtype='bfloat16')
  variables = shapes(model)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {'float32'}
  assert set(variables) == {'params', 'batch_stats'}
  images = jax.ShapeDtypeStruct((3, 33, 47, 3), jnp.float32)
  step = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  logits, new = jax.eval_shape(step, variables, images)
  assert (logits.shape, logits.dtype) == ((3, K), jnp.float32)
  assert new['batch_stats'] == variables['batch_stats']


def test_paths_read_as_sentences():
  resnet = paths(shapes(models.create('resnet50', num_classes=K))['params'])
  assert resnet['conv1/kernel'].shape == (7, 7, 3, 64)
  assert resnet['stage2_block1/downsample_conv/kernel'].shape == (1, 1, 256, 512)
  assert resnet['stage2_block1/downsample_bn/scale'].shape == (512,)
  assert resnet['stage4_block3/conv2/kernel'].shape == (3, 3, 512, 512)
  assert resnet['head/kernel'].shape == (2048, K)
  assert 'stage2_block2/downsample_conv/kernel' not in resnet
  mobile = paths(shapes(models.create('mobilenetv2', num_classes=K))['params'])
  assert mobile['stage2_block1/depthwise_conv/kernel'].shape == (3, 3, 1, 96)
  assert mobile['final_conv/kernel'].shape == (1, 1, 320, 1280)
  assert 'stage1_block1/expand_conv/kernel' not in mobile


def test_small_network_keeps_the_resolution_in_its_stem():
  model = models.create('resnet_small', num_classes=K)
  params = shapes(model)['params']
  stages = [f'stage{i}_block1' for i in (1, 2, 3)]
  assert set(params) == {'conv1', 'bn1', 'head', *stages}
  assert [params[stage]['conv2']['kernel'].shape[-1] for stage in stages] == [16, 32, 64]
  text = str(
    jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(
      shapes(model), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    )
  )
  assert 'f32[1,32,32,16]' in text
  assert 'f32[1,8,8,64]' in text
  assert 'reduce_window' not in text


@pytest.mark.parametrize(
  ('name', 'width', 'stem', 'last'),
  [
    ('resnet18', 0.5, 32, 256),
    ('resnet50', 2, 128, 4096),
    ('resnext50_32x4d', 0.25, 16, 512),
    ('resnet_small', 1.5, 24, 96),
    ('mobilenetv2', 0.5, 16, 1280),
    ('mobilenetv2', 0.35, 16, 1280),
    ('mobilenetv2', 1.4, 48, 1792),
  ],
)
def test_width(name, width, stem, last):
  params = shapes(models.create(name, num_classes=K, width=width))['params']
  assert params['conv1']['kernel'].shape[-1] == stem
  assert params['head']['kernel'].shape == (last, K)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'name': 'resnet19'}, "model.name: got 'resnet19', expected one of resnet18, resnet34,"),
    ({'num_classes': 0}, 'model.num_classes: expected a positive integer, got 0'),
    ({'width': 0}, 'model.width: expected a positive number, got 0'),
    ({'dtype': 'float16'}, "model.dtype: expected 'float32' or 'bfloat16', got 'float16'"),
    ({'dropout': 0.1}, 'model.dropout: resnet18 has no such option, expected one of axis_name, '),
    ({'name': 'mobilenetv2', 'groups': 2}, 'model.groups: mobilenetv2 has no such option'),
  ],
)
def test_wrong_options(options, message):
  with pytest.raises(ValueError) as error:
    models.create(**{'name': 'resnet18', 'num_classes': K, **options})
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)


def test_stages_of_a_resnet_are_none_of_a_mobilenet():
  with pytest.raises(ValueError, match=r'^stages: got \(1, 1\), expected of each \(expansion, channels, '):
    shapes(models.create('mobilenetv2', num_classes=K, stages=(1, 1)))


@pytest.mark.parametrize('inner', [(8, 16), ((8.5,),), ((True,),), (('a',),), ((0,),), ((2**21,),), ('ab',)])
def test_channels_inside_that_are_none_are_refused_before_a_run_begins(inner):
  config = quickstart.get_config()
  config.model.inner = inner
  with pytest.raises(ValueError, match=r'^config.model.inner: got \(.*\), expected channels, 1 to 1,048,576, for each'):
    configuration.validate(config)


@pytest.mark.parametrize(
  ('name', 'inner', 'wanted'),
  [('resnet18', ((8, 8),) * 8, 1), ('resnet50', ((8,),) * 16, 2), ('mobilenetv2', ((8,),) * 17, 0)],
)
def test_a_block_has_as_many_channels_inside_as_layers(name, inner, wanted):
  model = models.create(name, num_classes=K, inner=inner)
  with pytest.raises(ValueError) as error:
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, 32, 32, 3)))
  assert str(error.value) == f'model.inner: got {inner[0]} for a block, expected {wanted} of its layers, or ()'


@pytest.mark.parametrize('kind', TINY)
def test_wrong_inputs(kind):
  apply = functools.partial(tiny(kind).apply, shapes(tiny(kind)), train=False)
  for images in np.zeros((2, 3, 16, 16), np.float32), np.zeros((2, 16, 16, 3), np.uint8), np.zeros((16, 16, 3)):
    with pytest.raises(ValueError, match=r'^images: expected float \[B, H, W, 3\], got'):
      apply(images)
  with pytest.raises(ValueError, match=r'^mask: expected shape \[2\], got \(2, 1\)'):
    apply(np.zeros((2, 16, 16, 3)), mask=np.ones((2, 1)))


def test_initial_values_of_the_head():
  head = init(models.create('resnet_small', num_classes=1000), 'head')['head']
  for leaf in head.values():  # torch's default: uniform in +-1 / sqrt(64)
    assert np.abs(leaf).max() == pytest.approx(1 / 8, rel=0.01)
    assert float(leaf.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
  head = init(models.create('mobilenetv2', num_classes=1000), 'head')['head']
  assert float(head['kernel'].std()) == pytest.approx(0.01, rel=0.01)
  assert not head['bias'].any()


@pytest.mark.parametrize(
  ('options', 'zero'),
  [
    (TINY['basic'], {'stage1_block1/bn2', 'stage2_block1/bn2'}),
    (TINY['bottleneck'], {'stage1_block1/bn3', 'stage1_block2/bn3', 'stage2_block1/bn3'}),
    (
      {'name': 'mobilenetv2'},
      {
        f'stage{stage}_block{block}/project_bn'
        for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1), 1)
        for block in range(2, blocks + 1)
      },
    ),
  ],
  ids=['basic', 'bottleneck', 'inverted'],
)
def test_zero_init_last_gamma(options, zero):
  for wanted in True, False:
    model = models.create(**options, num_classes=K, zero_init_last_gamma=wanted)

    @jax.jit
    def scales(key, model=model):
      params = paths(model.init(key, random_images(1), train=False)['params'])
      return {path: leaf for path, leaf in params.items() if path.endswith('/scale')}

    values = {path.removesuffix('/scale'): leaf for path, leaf in scales(jax.random.key(0)).items()}
    zeros = {path for path, leaf in values.items() if (leaf == 0).all()}
    assert zeros == (zero if wanted else set())
    assert all((leaf == 1).all() for path, leaf in values.items() if path not in zeros)


@pytest.mark.parametrize('kind', TINY)
def test_mask_reaches_every_norm(kind):
  variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes(tiny(kind)))
  _, new = train(tiny(kind), variables, random_images(2), np.zeros(2))
  jax.tree.map(np.testing.assert_array_equal, new['batch_stats'], variables['batch_stats'])


def test_mask_counts_the_same_as_a_smaller_batch():
  model = tiny()
  variables, images = init(model), random_images(12)
  mask = np.array([1, 0, 1, 1, 0, 1] * 2, np.float32)
  logits, new = train(model, variables, images, mask)
  expected_logits, expected = train(model, variables, images[mask > 0])
  assert_close(new, expected)
  assert_close(logits[mask > 0], expected_logits)


def test_empty_mask_has_finite_loss_and_gradients():
  model = tiny()
  variables, images = init(model), random_images(2)

  @jax.jit
  @jax.value_and_grad
  def step(params):
    state = {**variables, 'params': params}
    logits, _ = model.apply(state, images, train=True, mask=jnp.zeros(2), mutable=['batch_stats'])
    return (logits**2).sum()

  for leaf in jax.tree.leaves(step(variables['params'])):
    assert np.isfinite(leaf).all()
    assert np.abs(leaf).max() > 0


def test_bfloat16_is_close_to_float32():
  variables, images = init(tiny()), random_images(8)
  full, full_stats = train(tiny(), variables, images)
  low, low_stats = train(tiny(dtype='bfloat16'), variables, images)
  assert low.dtype == jnp.float32
  error = np.abs(low - full).max() / np.abs(full).max()
  assert 1e-4 < error < 0.05  # it is computed in bfloat16, and near
  for a, b in zip(jax.tree.leaves(low_stats), jax.tree.leaves(full_stats)):
    np.testing.assert_allclose(a, b, rtol=0.05, atol=0.01)


def test_evaluation_of_an_image_depends_on_nothing_else():
  model, variables, images = tiny(), init(tiny()), random_images(4)
  apply = jax.jit(functools.partial(model.apply, train=False))
  together = apply(variables, images)
  for i in range(4):
    assert_close(apply(variables, images[i : i + 1])[0], together[i])


def test_sync_over_eight_devices_equals_one():
  model, variables, images = tiny(axis_name='data'), init(tiny()), random_images(8)
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  step = jax.shard_map(
    functools.partial(train.__wrapped__, model), mesh=mesh, in_specs=(P(), P('data')), out_specs=(P('data'), P())
  )
  logits, new = jax.jit(step)(variables, images)
  expected_logits, expected = train(tiny(), variables, images)
  assert_close((logits, new), (expected_logits, expected))
  # Neither evaluation nor initialisation needs the axis.
  jax.tree.map(np.testing.assert_array_equal, init(model), variables)
  model.apply(variables, images, train=False)


def test_vmap_over_networks():
  model, variables, images = tiny(), init(tiny()), random_images(3)
  stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf]), variables)
  apply = functools.partial(model.apply, train=False)
  logits = jax.jit(jax.vmap(apply, (0, None)))(stacked, images)
  for i, factor in enumerate((1, 1.5)):
    alone = jax.jit(apply)(jax.tree.map(lambda leaf: factor * leaf, variables), images)  # noqa: B023
    assert_close(alone, logits[i])
