"""docs/studies.md: the study in it can be run, and names those that there are."""

import pathlib
import re

from resjax.evidence import definition, jobs

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / 'docs' / 'studies.md').read_text(encoding='utf-8')


def test_the_study_in_it_can_be_run(tmp_path):
  (code,) = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
  (tmp_path / 'own.py').write_text(code)
  found = jobs.of_study(definition.read(tmp_path / 'own.py'), [0])
  assert [(run.arm, run.config.epochs) for run in found] == [('plain', 2.0), ('smooth', 2.0), ('longer', 4.0)]


def test_all_studies_are_in_it():
  there = {path.name for path in (ROOT / 'configs' / 'studies').glob('*.py')} - {'__init__.py', 'scales.py'}
  assert there <= set(re.findall(r'`(\w+\.py)`', TEXT))
