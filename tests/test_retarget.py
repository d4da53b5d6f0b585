"""The recipe of retargeting; what its fields say of each other."""

import jax
import pytest
from flax.traverse_util import flatten_dict
from test_teaching import taught

from resjax import models, recipes, rsnet
from resjax.planning import needs
from resjax.training import freezing


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'method': 'drnet'}, r"^config.teacher.checkpoint: got 'init' with method='drnet', expected method='rsnet'$"),
    ({'init.checkpoint': ''}, r"^config.init.checkpoint: got '', expected a workdir with teacher.checkpoint='init'$"),
    ({'teacher.checkpoint': ''}, r'^config.teacher.labels: got False without a teacher, expected a teacher.checkpoint'),
    ({'teacher.weight': 0.0}, r'^config.teacher.weight: got 0.0, expected more than 0$'),
    ({'data.source': 'images', 'teacher.labels': True}, r'^config.teacher: got checkpoint=.* have no labels$'),
    ({'data.eval_dir': 'x'}, r"^config.data.eval_dir: got 'x' with data.source='fake', expected"),
    ({'optimizer.statistics': 'none'}, r"^config.optimizer.statistics: got 'none', expected one of batch, kept$"),
  ],
)
def test_fields_that_contradict_each_other_are_refused_in_one_line(fields, message):
  with pytest.raises(ValueError, match=message) as error:
    taught('runs/x', **fields)
  assert '\n' not in str(error.value)


def test_a_plan_does_not_leave_the_teacher_out_in_silence():
  with pytest.raises(ValueError, match="^config.teacher.checkpoint: got 'init', expected '' for a plan"):
    needs.need(taught('runs/x'), jax.devices(), 8)


def test_the_recipes_depths():
  """Of the private one nothing but the smaller sizes' normalisers, and alpha, has a rate."""
  everything, private = recipes.make('retarget'), recipes.make('retarget:private')
  assert everything.optimizer.rates == () and private.teacher.checkpoint == 'init' and not private.teacher.labels
  model = models.from_config(private)
  params = jax.eval_shape(lambda key: rsnet.init(model, private, key), jax.random.key(0))['params']
  found = flatten_dict(freezing.labels(params, private.optimizer), sep='/')
  learning = {name for name, label in found.items() if label == 'x1'}
  sizes = {name.split('/')[1] for name in learning - {'alpha'}}
  assert sizes == {'192', '160', '128', '96'} and all(name.startswith('private/') for name in learning - {'alpha'})
  assert {label for label in found.values()} == {'x0', 'x1'}
  with pytest.raises(ValueError, match='^--config=retarget:some: expected one of all, private after the colon$'):
    recipes.make('retarget:some')
