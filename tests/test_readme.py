"""What README.md tells a new user to type: the example runs, the commands and files exist."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def test_the_library_example_runs_and_gives_what_its_comments_say():
  _, library = README.split('## Use it as a library')
  (example,) = re.findall(r'```python\n(.*?)```', library, re.DOTALL)
  names = {}
  exec(compile(example, 'README.md', 'exec'), names)
  assert names['logits'].shape == (3, 4, 10)
  assert list(names['batch_stats']) == ['32', '16', '8']
  names['model'].apply(names['small'], names['images'][2], train=False)
  assert names['multiply_adds'] > 0


def test_every_file_that_is_named_exists():
  named = set(re.findall(r'\]\(([^):]+)\)', README)) | {
    f'configs/{name}' for name in re.findall(r'`(\w+\.py)`', README)
  }
  assert named >= {'LICENSE', 'docs/results.md', 'configs/quickstart.py', 'configs/rsnet_mobilenetv2.py'}
  assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_config_is_in_the_table():
  recipes = {path.name for path in (ROOT / 'configs').glob('*.py')} - {'default.py', '__init__.py'}
  assert recipes <= set(re.findall(r'`(\w+\.py)`', README))


def test_every_flag_that_is_named_is_a_field_of_the_config():
  from configs import default

  fields = set(re.findall(r'--config\.([a-z_.]+)=', README))
  assert fields >= {'data.dir', 'epochs'}
  for field in fields:
    value = default.get_config()
    for part in field.split('.'):
      value = value[part]


def test_every_extra_that_is_named_exists():
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  assert set(re.findall(r"'\.\[(\w+)\]'", README)) == {'gpu', 'serve', 'tpu', 'test'} <= set(extras)


def test_the_two_commands_stand_where_ci_finds_them():
  commands = [line for line in README.splitlines() if line.startswith('python3 -m venv ')]
  assert len(commands) == 2
  assert commands[0].endswith(' main.py --config=configs/quickstart.py')
  assert commands[1].endswith(' -m pytest')
  assert all(command.count(' && ') == 2 for command in commands)
