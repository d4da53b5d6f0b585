import os

import jax
import pytest

from resjax import compiling


@pytest.fixture
def fresh():
  jax.devices()  # reads XLA_FLAGS, once, before a test changes it
  compiling.options.cache_clear()
  yield
  compiling.options.cache_clear()


def test_options_are_for_a_cpu_and_of_a_purpose(fresh, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '')
  assert compiling.options('gpu', 'training') == {}
  training, inference = compiling.options('cpu', 'training'), compiling.options('cpu', 'inference')
  if not training:
    pytest.skip('this XLA does not know the option')
  assert training == {compiling.OPTION: 'LIBRARY_FUSION_TYPE_REDUCE'} and inference == {compiling.OPTION: ''}


def test_an_option_that_this_xla_does_not_know_is_left_out(fresh, monkeypatch):
  monkeypatch.setattr(compiling, 'OPTION', 'xla_cpu_no_such_option')
  assert compiling.options('cpu', 'inference') == {}


def test_the_users_flag_is_left_as_it_is(fresh, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', f'--{compiling.OPTION}=LIBRARY_FUSION_TYPE_REDUCE')
  assert compiling.options('cpu', 'inference') == {}


@pytest.fixture
def cache_dir():
  """Whatever a test sets is set back."""
  before = jax.config.jax_compilation_cache_dir
  yield
  jax.config.update('jax_compilation_cache_dir', before)


def test_compiled_programs_are_kept_where_the_user_says_or_in_the_users_cache(cache_dir, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', '/elsewhere')
  compiling.keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir == '/elsewhere' and not os.listdir(tmp_path)
  jax.config.update('jax_compilation_cache_dir', None)
  compiling.keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'resjax' / 'compiled')


def test_a_cache_that_cannot_be_made_costs_a_warning(cache_dir, tmp_path, monkeypatch, caplog):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  jax.config.update('jax_compilation_cache_dir', None)
  compiling.keep_compiled_programs()
  assert jax.config.jax_compilation_cache_dir is None and 'no compilation cache' in caplog.text
