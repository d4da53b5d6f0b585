"""The predictors' sizes and costs, exact for the paper's, within bounds for ours."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from resjax import macs, models
from resjax.models.predictor import PREDICTORS, create_predictor

COUNTS = json.loads((pathlib.Path(__file__).parent / 'reference' / 'counts.json').read_text())


def params(predictor, size):
  init = lambda: predictor.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)
  return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init)['params']))


def test_resnet10_is_the_papers():
  predictor = create_predictor('resnet10', resolutions=3)
  expected = COUNTS['predictor_resnet10_3_choices']
  assert PREDICTORS['resnet10'][1] == 128
  assert params(predictor, 128) == expected['params'] == 4_907_331
  assert macs.of_model(predictor, 128) == expected['macs']['128'] == 290_194_944
  assert macs.of_model(predictor, 64) == expected['macs']['64']


def test_mobile_is_the_guess_that_fits_the_paper():
  predictor = create_predictor('mobile', resolutions=3)
  assert PREDICTORS['mobile'][1] == 64
  assert params(predictor, 64) == 271_747
  assert macs.of_model(predictor, 64) == 7_315_968


@pytest.mark.parametrize(
  ('backbone', 'resolution', 'size', 'width', 'share'),
  [
    ('resnet50', 224, 64, 4.0, 0.01),
    ('resnet18', 224, 64, 3.0, 0.01),
    ('mobilenetv2', 224, 64, 1.0, 0.01),
    ('resnet_small', 32, 16, 1.0, 0.05),
  ],
)
def test_ours_costs_a_hundredth_of_its_backbone(backbone, resolution, size, width, share):
  own = macs.of_model(create_predictor('small', resolutions=3, width=width), size)
  assert own <= share * macs.of_model(models.create(backbone, num_classes=1000), resolution)
  assert own <= {'resnet50': 40e6, 'mobilenetv2': 3e6}.get(backbone, own)


@pytest.mark.parametrize('name', PREDICTORS)
def test_a_predictor_scores_each_resolution(name):
  predictor = create_predictor(name, resolutions=4, width=0.25, dtype='bfloat16')
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  run = functools.partial(predictor.init_with_output, train=True)
  scores, variables = jax.eval_shape(run, jax.random.key(0), images)
  assert scores.shape == (2, 4) and scores.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_an_unknown_predictor_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match="drnet.predictor.name: got 'vgg', expected one of small, resnet10, mobile"):
    create_predictor('vgg', resolutions=2)
