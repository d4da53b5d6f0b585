"""The plan: what a step needs, the search, the command, and one real compilation for TPUs."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from resjax import cli, macs, models, rsnet
from resjax import config as configuration
from resjax.data import loader, sources
from resjax.planning import needs, topology
from resjax.resolution import at_widths

TINY = ['--config.model.width=0.25', '--config.resolutions=(16,8)', '--config.data.size=64']


def tiny(*fields):
  return configuration.load('configs/quickstart.py', [*TINY, *fields])


# --- what a step needs ---


def test_the_batch_is_the_loaders():
  for pyramid in ('host', 'device'):
    config = tiny(f'--config.data.pyramid={pyramid}', '--config.batch_size=16')
    source = sources.create(config, config.data.train_split)
    batches = loader.train_batches(source, config, process_index=0, process_count=1, local_devices=8)
    batch = next(batches)
    batches.close()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    assert needs.batch_of(config, 16) == shapes


@pytest.mark.parametrize(
  ('memory', 'names', 'least', 'most'),
  [
    # XLA exchanges gradients that are equal once, such as those of the offsets of two BatchNorms that are added.
    ('joint', ['train_step'], 0.98, 1),
    ('two_pass', ['look 1', 'learn 0', 'learn 1', 'update'], 1, 1),
  ],
)
def test_what_a_step_needs(memory, names, least, most):
  config = tiny(f'--config.memory={memory}')
  need = needs.need(config, jax.devices(), 2)
  assert [program.name for program in need.programs] == names
  variables = jax.eval_shape(lambda key: rsnet.init(models.from_config(config), config, key), jax.random.key(0))
  params, statistics = (sum(x.size for x in jax.tree.leaves(variables[kind])) for kind in ('params', 'batch_stats'))
  counters = 2  # the step's and the schedule's
  assert need.fits and need.state == 4 * (2 * params + statistics + counters)  # with momentum
  reduced = sum(sum(program.collectives.values()) for program in need.programs)
  scalars = 32  # losses and other metrics, one number each
  assert 4 * (least * params + statistics) <= reduced <= 4 * (most * params + statistics + scalars)
  assert need.batch == 2 * (16 * 16 * 3 + 4 + 4)  # uint8, and a label and an index of 32 bits
  for program in need.programs:
    assert program.arguments + program.held >= need.state + need.batch
    assert program.temporaries >= 0 and need.memory >= program.memory


def test_what_is_held_beside_a_program_has_to_fit_too():
  """The compiler sees one program at a time; a device holds the rest of the state as well."""
  config = tiny('--config.memory=two_pass', '--config.resolutions=(8,)', '--config.distillation=none')
  need = needs.need(config, jax.devices(), 2)
  dearest = max(need.programs, key=lambda program: program.memory)
  room = dearest.memory - dearest.held
  assert need.fits and dearest.held > 0 and not needs.need(config, jax.devices(), 2, room).fits


def test_pmap_has_no_plan():
  with pytest.raises(ValueError, match=r"^config\.parallel: got 'pmap', expected 'shard_map' for a plan$"):
    needs.need(tiny('--config.parallel=pmap'), jax.devices(), 2)


@pytest.mark.parametrize('memory', ['joint', 'two_pass'])
def test_multiply_adds(memory):
  config = tiny('--config.data.pyramid=host', f'--config.memory={memory}')
  model = models.from_config(config)
  costs = [macs.of_model(model, r) for r in (16, 8)]
  forward, step = needs.multiply_adds(config, 4)
  ensemble = 4 * 2 * 10  # the logits of two resolutions, weighed
  assert 0 <= forward - 4 * sum(costs) <= 4 * ensemble
  assert step == 3 * forward + (4 * costs[1] if memory == 'two_pass' else 0)


@pytest.mark.parametrize('memory', ['joint', 'two_pass'])
def test_multiply_adds_by_the_sandwich_rule_are_the_mean_over_its_draws(memory):
  """Of the two branches between, one is drawn."""
  fields = ['--config.widths=(1.0,0.5)', f'--config.memory={memory}']
  all_of_them, drawn = (tiny(*fields, f'--config.sandwich={count}') for count in (0, 1))
  model = models.from_config(drawn)
  between = sum(macs.of_model(model, r) for r in at_widths(drawn)[1:-1])
  (forward, step), (mean, mean_step) = (needs.multiply_adds(config, 4) for config in (all_of_them, drawn))
  assert forward - mean == 2 * between and step - mean_step == 2 * between * (4 if memory == 'two_pass' else 3)


# --- the search ---


def straight(state, each, memory):
  """A step whose memory is a straight line, and the batches that it was compiled for."""
  asked = []

  def measure(images):
    asked.append(images)
    need = state + each * images
    return needs.Need(images, state, 0, need, need <= memory, ())

  return measure, asked


@pytest.mark.parametrize(
  ('first', 'each', 'fits', 'refused'),
  [
    (32, 10, 64, 96),
    (64, 10, 64, 96),
    (96, 10, 64, 96),
    (1, 10, 64, 96),
    (1000, 10, 64, 96),
    (40, 25, 32, 48),
    (8, 900, 1, 2),
    (8, 901, 0, 1),
    (8, 300, 3, 4),
  ],
)
def test_the_search_ends_between_neighbours(first, each, fits, refused):
  memory = 1000 if each > 25 else 940
  measure, asked = straight(100, each, memory)
  if each == 25:
    fits, refused = 32, 40  # 40 was measured, and does not fit
  found = needs.largest(measure, measure(first), memory)
  assert found[:2] == (fits, refused)
  assert [need.per_chip for need in found[2]] == asked
  assert len(asked) == len(set(asked)) <= 4


def test_the_search_does_not_trust_a_line():
  def measure(images):
    need = 500 + 10 * images + 2 ** (images // 64)
    return needs.Need(images, 100, 0, need, need <= 2000, ())

  assert needs.largest(measure, measure(8), 2000)[:2] == (128, 192)


# --- the command ---


def test_without_libtpu_one_line_says_how_to_get_it(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.delenv('TPU_LIBRARY_PATH', raising=False)
  with pytest.raises(SystemExit) as error:
    cli.main(['plan', '--config=configs/quickstart.py', '--topology=v5e-8', '--batch=64'])
  assert error.value.code == ("error: libtpu: not installed, expected XLA's compiler for TPUs: pip install -e '.[tpu]'")


def test_the_command_prints_and_writes_its_plan(monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(topology, 'devices_of', lambda name: jax.devices())
  monkeypatch.setattr('resjax.commands.plan.libtpu_version', lambda: '1.2.3')
  file = tmp_path / 'plan.json'
  cli.main(['plan', '--config=configs/quickstart.py', '--topology=v5e-8', '--batch=16', f'--json={file}', *TINY])
  result = json.loads(file.read_text())
  assert (result['chips'], result['need']['per_chip'], result['batch_size']) == (8, 2, 16)
  assert result['macs']['step'] == 8 * result['macs']['per_chip']
  rate = 0.4 * topology.CHIPS['v5e'].peak / (result['macs']['per_chip'] / 2)
  np.testing.assert_allclose(result['images_per_second'], 8 * rate, rtol=1e-12)
  shown = capsys.readouterr().out
  assert 'resnet_small at 16, 8 px, float32, on v5e-8: 8 chips, 2 images on each, 16 in a' in shown
  assert 'train_step' in shown and 'all-reduce' in shown and 'largest' not in shown


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--topology=v5e-8', '--batch=12'], r'--batch: got 12, expected a multiple of the 8 chips of v5e-8'),
    (['--topology=v5p-512', '--config.batch_size=100'], r'config\.batch_size: got 100, expected a multiple of the 256'),
    (['--topology=v9-8'], r"--topology: got 'v9-8', expected one of v5e-4"),
    (['--topology=v5e-8', '--json=none/plan.json'], r'none/plan.json: no folder .*none, expected one'),
  ],
)
def test_bad_input_is_one_line(arguments, message):
  with pytest.raises(SystemExit, match=rf'^error: {message}'):
    cli.main(['plan', '--config=configs/quickstart.py', *arguments])


@pytest.mark.slow
def test_a_step_compiled_for_tpus():
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip("needs XLA's compiler for TPUs: pip install -e '.[tpu]'")
  config = tiny('--config.model.dtype=bfloat16')
  need = needs.need(config, topology.devices_of('v5e-8'), 4)
  on_cpu = needs.need(config, jax.devices(), 4)
  assert need.fits and need.state == on_cpu.state
  (program,) = need.programs
  assert program.code > 0 and program.arguments + program.held >= need.state  # what is so small needs no room beside
  # TPUs reduce what the CPU reduces, and scalars in arrays of one.
  assert sum(program.collectives.values()) == pytest.approx(sum(on_cpu.programs[0].collectives.values()), abs=1000)
