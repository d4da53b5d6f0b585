"""A classifier in other processes: pickled before and after predictions, spawned; a fork is refused, not waited for."""

import copy
import dataclasses
import multiprocessing
import os
import pickle

import jax
import networks
import numpy as np
import pytest

from resjax.inference import Classifier

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), np.uint8)


def answers(classifier, **asked):
  return [(found.label, found.probability) for found in classifier.predict(IMAGES, **asked)]


def in_child(classifier, pipe):
  """What a child process says, or its refusal."""
  try:
    pipe.send(answers(classifier))
  except Exception as error:
    pipe.send(f'{type(error).__name__}: {error}')


def of_child(classifier, method):
  context = multiprocessing.get_context(method)
  ours, theirs = context.Pipe()
  process = context.Process(target=in_child, args=(classifier, theirs))
  process.start()
  try:
    assert ours.poll(240), 'no answer'
    return ours.recv()
  finally:
    process.join(30)
    process.kill()


@pytest.fixture(scope='module')
def classifier():
  made = Classifier(networks.tiny('drnet'), max_batch=4, threads=2)
  made.calibrate(IMAGES)
  return made


def test_it_is_pickled_after_it_has_predicted_with_all_but_its_programs(classifier):
  asked = [{}, {'resolution': 12}, {'resolution': 16}, {'budget': 0.9}]
  classifier.recalibrate(10, IMAGES)
  asked.append({'resolution': 10})  # by statistics that were found on images
  before = [answers(classifier, **some) for some in asked]
  text = pickle.dumps(classifier)
  again = pickle.loads(text)
  assert [answers(again, **some) for some in asked] == before
  assert again.notes == classifier.notes and again.counts.images > 0
  weights = sum(np.asarray(x).nbytes for x in jax.tree.leaves(classifier.network.variables))
  assert len(text) < 4 * weights + 200_000


def test_a_process_that_was_spawned_says_the_same(classifier):
  found, here = of_child(classifier, 'spawn'), answers(classifier)
  assert [label for label, _ in found] == [label for label, _ in here]
  np.testing.assert_allclose([p for _, p in found], [p for _, p in here], rtol=1e-5)


@pytest.mark.filterwarnings('ignore:os.fork:RuntimeWarning', 'ignore:.*fork:DeprecationWarning')
@pytest.mark.parametrize('again', [lambda made: made, lambda made: pickle.loads(pickle.dumps(made)), copy.deepcopy])
def test_a_process_that_was_forked_before_a_prediction_is_told_so_where_jax_was_started(classifier, again):
  network = classifier.network
  loaded = dataclasses.replace(network, variables=jax.device_put(network.variables))  # as `trained.load` has them
  said = of_child(again(Classifier(loaded, max_batch=4)), 'fork')
  assert said.startswith(f'RuntimeError: this process was forked from process {os.getpid()}, which has loaded the')
  assert 'spawn' in said and '\n' not in said


@pytest.mark.filterwarnings('ignore:os.fork:RuntimeWarning', 'ignore:.*fork:DeprecationWarning')
def test_a_process_that_was_forked_after_a_prediction_is_told_so_and_does_not_hang(classifier):
  answers(classifier)
  said = of_child(classifier, 'fork')
  assert said.startswith(f'RuntimeError: this process was forked from process {os.getpid()}, which has loaded the')
  assert 'spawn' in said and '\n' not in said
  assert answers(classifier)
