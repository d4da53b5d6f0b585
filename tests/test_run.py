"""The parts of a run from its config: steps counted, sources, shapes; nothing is compiled."""

import jax
import pytest

from configs import default
from resjax.training import run


def build(**fields):
  config = default.get_config()
  config.update_from_flattened_dict(
    {
      'resolutions': (16, 8),
      'batch_size': 16,
      'epochs': 3.0,
      'model.name': 'resnet_small',
      'model.num_classes': 3,
      'model.width': 0.25,
      'data.source': 'fake',
      'data.name': '',
      'data.size': 70,
      **fields,
    }
  )
  return run.build(config)


@pytest.mark.parametrize(
  ('epochs', 'accumulate', 'total'),
  [(3.0, 1, 12), (0.5, 1, 2), (0.01, 1, 1), (3.0, 5, 10), (3.0, 8, 16)],
)
def test_steps_are_epochs_of_whole_batches_and_a_multiple_of_what_is_accumulated(epochs, accumulate, total):
  made = build(epochs=epochs, **{'optimizer.accumulate': accumulate})
  assert (made.steps_per_epoch, made.total_steps) == (4, total)


def test_shapes_are_those_of_the_state():
  made = build(**{'optimizer.ema_decay': 0.9})
  described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)
  assert described(made.state_shapes()) == described(made.fresh_state())
  assert made.state_shapes().ema is not None and build().state_shapes().ema is None


def test_both_splits_are_made():
  made = build()
  names = [source.name_of(0) for source in (made.train_source, made.eval_source)]
  assert names == ['fake/train 0', 'fake/validation 0'] and made.train_source.num_classes == 3


@pytest.mark.parametrize(('sync', 'axis'), [(False, None), (True, 'data')])
def test_batch_norm_of_all_devices_is_told_the_axis(sync, axis):
  assert build(sync_batch_norm=sync).model.axis_name == axis


@pytest.mark.parametrize(('method', 'predictor'), [('rsnet', False), ('drnet', True)])
def test_the_method_makes_the_variables(method, predictor):
  params = build(method=method, **{'drnet.predictor.size': 8}).state_shapes().params
  assert ('predictor' in params) == predictor


def test_data_that_are_smaller_than_a_batch_are_refused():
  with pytest.raises(ValueError, match=r'^config\.batch_size: 128, expected at most the 70 training images'):
    build(batch_size=128)
