import os
import platform
import subprocess
import sys
import warnings

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
  assert training == {compiling.OPTION: 'LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_DOT'}
  assert inference == {compiling.OPTION: ''}


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


PAGES = """
import resource
import jax
import jax.numpy as jnp
from resjax import compiling
if KEPT:
  compiling.keep_memory()
program = jax.jit(lambda x: (x @ x.T) @ x)
x = jnp.ones((4096, 8))  # 64 MiB in between
program(x).block_until_ready(), program(x).block_until_ready()
made = []
for _ in range(20):  # now and then two blocks take turns
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  program(x).block_until_ready()
  made.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(made))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')
def test_a_program_that_runs_again_finds_its_pages_made():
  environment = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
  made = []
  for kept in (False, True):
    code = PAGES.replace('KEPT', str(kept))
    out = subprocess.run([sys.executable, '-c', code], env=environment, check=True, stdout=subprocess.PIPE).stdout
    made.append(int(out))
  assert made[0] > 64 * 2**20 / os.sysconf('SC_PAGE_SIZE') / 2 and made[1] < made[0] / 10, made


class Library:
  """A C library that notes how its malloc is set."""

  def __init__(self):
    self.options = {}

  def mallopt(self, option, value):
    self.options[option] = value


@pytest.mark.parametrize(
  ('platforms', 'files', 'variable', 'kept'),
  [
    (None, [], None, True),
    ('cpu', ['/dev/nvidia0'], None, True),
    (None, ['/dev/nvidia0'], None, False),
    ('cuda,cpu', [], None, False),
    ('cpu', [], 'glibc.malloc.hugetlb=1', False),
  ],
)
def test_memory_is_kept_on_a_cpu_unless_the_user_has_set_malloc(platforms, files, variable, kept, monkeypatch):
  library, before = Library(), jax.config.jax_platforms
  monkeypatch.setattr(compiling.ctypes, 'CDLL', lambda name: library)
  monkeypatch.setattr(compiling.glob, 'glob', lambda pattern: files if pattern == '/dev/nvidia*' else [])
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  if variable:
    monkeypatch.setenv('GLIBC_TUNABLES', variable)
  try:
    jax.config.update('jax_platforms', platforms)
    compiling.keep_memory()
  finally:
    jax.config.update('jax_platforms', before)
  assert library.options == (compiling.MALLOC if kept else {})


def test_a_cache_that_can_not_be_written_or_read_is_no_news():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    compiling.keep_compiled_programs()
    for what in ('reading', 'writing'):
      warnings.warn(f"Error {what} persistent compilation cache entry for 'jit_a': disk", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match='another'):
      warnings.warn('another', UserWarning, stacklevel=1)
