"""docs/library.md: every piece of code in it runs, and gives what its comments say; those of docs/inference.md too."""

import pathlib
import re

import jax
import numpy as np
import pytest

import resjax
from resjax import routing, switchable, unseen

TEXT = (pathlib.Path(__file__).parents[1] / 'docs' / 'library.md').read_text(encoding='utf-8')
PIECES = dict(re.findall(r'^## (.*?)\n.*?```python\n(.*?)```', TEXT, re.DOTALL | re.MULTILINE))


def test_no_piece_of_code_is_left_out():
  assert len(PIECES) == TEXT.count('```python') == 6


@pytest.mark.parametrize('title', PIECES)
def test_a_piece_of_code_runs(title):
  names = {}
  exec(compile(PIECES[title], f'docs/library.md: {title}', 'exec'), names)
  wanted = re.search(r'^logits.*# \[([\d, ]+)\]$', PIECES[title], re.MULTILINE)[1]
  assert names['logits'].shape == tuple(int(size) for size in wanted.split(', '))
  variables, plain = names['variables'], names['plain']
  views = [resjax.view(variables, r) for r in (32, 16, 8)]
  assert all(jax.tree.structure(view) == jax.tree.structure(plain) for view in views)
  count = sum(leaf.size for leaf in jax.tree.leaves(plain))
  assert count < sum(leaf.size for leaf in jax.tree.leaves(variables)) < 3 * count
  if 'apply' in names:
    changed = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, views[:2]))]
    assert any(changed) and not all(changed)


@pytest.mark.parametrize('title', ['Flax NNX', 'Equinox'])
@pytest.mark.parametrize('jitted', [False, True])
def test_statistics_of_foreign_trees_are_recalibrated(title, jitted):
  """They become those of the one batch: then the running statistics give what the batch's own give."""
  names = {}
  exec(compile(PIECES[title], f'docs/library.md: {title}', 'exec'), names)
  apply = jax.jit(names['apply'], static_argnums=2) if jitted else names['apply']
  before, batch = names['variables'], 2 * names['images'][1] + 1
  after, _ = unseen.recalibrate(apply, before, 16, [batch])
  got, _ = apply(switchable.view(after, 16), batch, False)
  wanted, _ = apply(switchable.view(before, 16), batch, True)
  np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)  # the momentum, 0.99, magnifies rounding a hundredfold
  assert np.abs(apply(switchable.view(before, 16), batch, False)[0] - wanted).max() > 1e-2
  for r in (32, 8):
    jax.tree.map(np.testing.assert_array_equal, switchable.view(after, r), switchable.view(before, r))


def test_the_training_step_learns_and_is_as_short_as_it_says():
  text = PIECES["A training step of one's own"]
  names = {}
  exec(compile(text, 'docs/library.md', 'exec'), names)
  assert names['losses'][-1] < 0.5 * names['losses'][0] and np.isfinite(names['losses']).all()
  assert names['network'].resolutions == (32, 16, 8)
  first, last = text.index('model, resolutions = '), text.index('\n\n\nopt_state')
  assert len([line for line in text[first:last].splitlines() if line.strip()]) == 15


def test_a_counter_is_refused_where_statistics_are_recalibrated():
  names = {}
  exec(compile(PIECES['Equinox'].replace('is_inexact_array', 'is_array'), 'docs/library.md', 'exec'), names)
  with pytest.raises(ValueError, match='^model: changes 1/0, int32, expected only running averages to change'):
    unseen.recalibrate(names['apply'], names['variables'], 16, [names['images'][1]])


def test_the_network_by_hand_and_the_router_of_ones_own_meet_a_budget(monkeypatch):
  """Those of docs/inference.md, as a user who types both; without a run, and so without the first piece."""
  text = (pathlib.Path(__file__).parents[1] / 'docs' / 'inference.md').read_text(encoding='utf-8')
  first, *pieces = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  pieces = [piece for piece in pieces if 'multiprocessing' not in piece]  # a script of its own
  assert 'Classifier.load' in first and len(pieces) == 2
  monkeypatch.setattr(routing, 'ROUTERS', dict(routing.ROUTERS))
  names = {'__name__': __name__}
  for piece in pieces:
    exec(compile(piece, 'docs/inference.md', 'exec'), names)
  classifier, network = names['classifier'], names['network']
  images = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.full((32, 32, 3), 4, np.uint8)
  classifier.calibrate(images)
  found = classifier.predict(images, router='brightness', budget=0.8)
  order = [p.resolution for p in found]
  assert order == sorted(order, reverse=True) and set(order) == {32, 24}
  assert np.mean([p.macs for p in found]) == pytest.approx(0.8 * network.macs[0], abs=network.macs[0] / 60)
  assert names['smaller'].resolutions == (28,) and {p.label for p in found} <= {'cat', 'dog', 'cow'}
