"""The training step in bfloat16, as every platform gets it and as a GPU gets it, which need not be there."""

import functools
import re
from collections import Counter

import jax
import pytest

from configs import default
from resjax import compiling, models
from resjax.planning import needs
from resjax.training import run
from resjax.training.devices import Devices, placed

FIELDS = {
  'rsnet': {'memory': 'joint'},
  'drnet': {'method': 'drnet', 'drnet.start': 'scratch', 'drnet.predictor.size': 8, 'drnet.budget': 0.9},
}


def traced(**fields):
  """A traced training step, its state's and its batch's shapes."""
  config = default.get_config()
  config.resolutions = (16, 8)
  config.model.update({'name': 'resnet18', 'num_classes': 5, 'width': 0.125, 'dtype': 'bfloat16'})
  config.update_from_flattened_dict(fields)
  devices = Devices(devices=jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:  # two stages: all kinds of layers are in them
    patch.setitem(models.MODELS, 'resnet18', functools.partial(models.MODELS['resnet18'], stages=(1, 1)))
    _, fresh, step = run.make_training(config, devices, 10, 20)
    state = devices.shapes(fresh, jax.random.key(0))
    batch = placed(needs.batch_of(config, 4), devices.split)
    return step.program.trace(state, batch, jax.eval_shape(step.given, state)), state, batch


@pytest.fixture(scope='module', params=list(FIELDS))
def step(request):
  return traced(**FIELDS[request.param])


def equations(jaxpr):
  """All equations of a jaxpr, those of jaxprs within it too; of what differs by platform, those of accelerators."""
  for equation in jaxpr.eqns:
    yield equation
    values = dict(equation.params)
    if platforms := values.get('branches_platforms'):
      values['branches'] = values['branches'][platforms.index(None)]
    for value in values.values():
      for item in value if isinstance(value, tuple | list) else (value,):
        if hasattr(item, 'eqns') or hasattr(item, 'jaxpr'):
          yield from equations(getattr(item, 'jaxpr', item))


def types(equation):
  return {str(v.aval.dtype) for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, 'dtype')}


def test_convolutions_are_in_bfloat16_and_all_sums_in_float32(step):
  trace, state, _ = step
  kinds = {}
  for equation in equations(trace.jaxpr.jaxpr):
    kinds.setdefault(equation.primitive.name, []).append(equation)
  assert all(types(e) == {'bfloat16'} for e in kinds['conv_general_dilated'])
  sums = ('reduce_sum', 'reduce_max', 'dot_general', 'exp', 'log', 'rsqrt', 'sqrt')
  for name in sums:  # BatchNorm's statistics and their gradients, the head, softmax and losses, norms
    found = set().union(*(types(e) for e in kinds.get(name, [])))
    assert 'bfloat16' not in found, name
  assert {'reduce_sum', 'dot_general', 'exp', 'log', 'rsqrt'} <= kinds.keys()
  kernels = {leaf.shape for leaf in jax.tree.leaves(state.params) if len(leaf.shape) == 4}
  several = [e for e in kinds['add_any'] if e.outvars[0].aval.shape in kernels]  # gradients of several resolutions
  assert several and all(types(e) == {'float32'} for e in several)


def test_what_is_kept_between_steps_is_in_float32(step):
  trace, state, _ = step
  assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {'float32', 'int32'}
  out = [leaf.dtype.name for leaf in jax.tree.leaves(trace.out_info)]
  assert set(out) == {'float32', 'int32'}
  jax.tree.map(lambda a, b: (a.dtype == b.dtype) or pytest.fail(f'{a} {b}'), trace.out_info[0], state)


def test_factors_are_not_rounded_in_the_pyramid_and_in_the_ensemble(step):
  trace, _, _ = step
  products = [e for e in equations(trace.jaxpr.jaxpr) if e.primitive.name == 'dot_general']
  exact = [e for e in products if e.params['precision'] == (jax.lax.Precision.HIGHEST,) * 2]
  others = [e for e in products if e not in exact]
  assert exact and others
  # The heads' alone, forward and backward; float32 may be rounded there to what tensor cores take.
  assert all(len(v.aval.shape) == 2 for e in others for v in (*e.invars, *e.outvars))


@pytest.fixture(scope='module')
def for_gpu(step):
  trace, state, batch = step
  return trace.lower(lowering_platforms=('cuda',)).as_text(), state, batch


def test_a_gpu_gets_bytes_and_gives_the_state_its_old_memory(for_gpu):
  text, state, batch = for_gpu
  main = re.search(r'func\.func public @main\((.*?)\) -> ', text, re.S).group(1)
  arguments = [a for a in re.split(r'%arg\d+: ', main) if a]
  assert len(arguments) > len(jax.tree.leaves((state, batch)))  # the numbers that the step is given
  given = [a for a in arguments if 'tf.aliasing_output' in a or 'jax.buffer_donor' in a]
  assert len(given) == len(jax.tree.leaves(state))
  assert Counter(re.findall(r'^tensor<4x[\dx]+x3x(\w+)>', '\n'.join(arguments), re.M)) == {'ui8': 1}
  convolutions = re.findall(r'stablehlo\.convolution.*->\s*tensor<[\dx]+x(\w+)>', text)
  assert convolutions and set(convolutions) == {'bf16'}


def test_cuda_has_the_max_pool_by_winners_and_a_tpu_xlas_own(step, for_gpu):
  winners = r'stablehlo\.compare\s+EQ.*ui8'  # which tap of a window was the largest
  theirs = step[0].lower(lowering_platforms=('tpu',)).as_text()
  assert [len(re.findall('"stablehlo.select_and_scatter"', text)) for text in (for_gpu[0], theirs)] == [0, 2]
  assert re.search(winners, for_gpu[0]) and not re.search(winners, theirs)


@pytest.mark.parametrize('platform', ['gpu', 'cuda', 'tpu'])
@pytest.mark.parametrize('purpose', list(compiling.FUSIONS))
def test_other_compilers_get_no_option_of_the_cpus(platform, purpose):
  assert compiling.options(platform, purpose) == {}
