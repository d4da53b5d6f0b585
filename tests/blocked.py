"""A script for `python -c`: runs a file where some packages, its first argument, can't be imported."""

SCRIPT = """
import runpy, sys

blocked = sys.argv[1].split(',')
class Blocker:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in blocked:
      raise ImportError(f'{name} is not here')

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
