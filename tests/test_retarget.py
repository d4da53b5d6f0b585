"""The recipe of retargeting; what its fields say of each other."""

import jax
import pytest
from test_teaching import taught

from resjax.planning import needs


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'method': 'drnet'}, r"^config.teacher.checkpoint: got 'init' with method='drnet', expected method='rsnet'$"),
    ({'init.checkpoint': ''}, r"^config.init.checkpoint: got '', expected a workdir with teacher.checkpoint='init'$"),
    ({'teacher.checkpoint': ''}, r'^config.teacher.labels: got False without a teacher, expected a teacher.checkpoint'),
    ({'teacher.weight': 0.0}, r'^config.teacher.weight: got 0.0, expected more than 0$'),
    ({'data.source': 'images', 'teacher.labels': True}, r'^config.teacher: got checkpoint=.* have no labels$'),
    ({'data.source': 'images'}, r"^config.data.eval_dir: got '' with data.source='images', expected a folder with"),
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
