"""`resjax evaluate`: a workdir scored on splits and folders; what does not fit ends in one line."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import default
from resjax import cli, models, rsnet, trained

pytestmark = pytest.mark.usefixtures('shallow')

NAMES = ('apple tree', 'birch', 'cedar', 'elm', 'fir')


def write_folder(root, folders):
  for number, name in enumerate(folders):
    (root / name).mkdir(parents=True)
    for image in range(3):
      pixels = np.random.default_rng([number, image]).integers(0, 256, (20, 24, 3), np.uint8)
      Image.fromarray(pixels).save(root / name / f'{image}.png')
  return root


@pytest.fixture(scope='module')
def workdir(shallow, tmp_path_factory):
  """A network of five trees, as a finished run on a folder of them left it."""
  root = tmp_path_factory.mktemp('trees')
  write_folder(root / 'photos' / 'val', NAMES)
  config = default.get_config()
  config.resolutions, config.model.name, config.model.num_classes, config.model.width = (16, 8), 'resnet_small', 5, 0.25
  config.data.source, config.data.dir, config.data.eval_split = 'folder', str(root / 'photos'), 'val'
  model = models.from_config(config)
  variables = jax.jit(lambda key: rsnet.init(model, config, key))(jax.random.key(0))
  rng = np.random.default_rng(0)
  moved = jax.tree.map(lambda x: np.asarray(x) + rng.uniform(0, 0.3, x.shape).astype(np.float32), variables)
  network = trained.of_config(config, moved, NAMES)
  trained.save(trained.Trained(network, config, 0, True), root / 'run')
  (root / 'run' / 'results.json').write_text('as it was')
  return root / 'run'


def run(workdir, *arguments):
  cli.main(['evaluate', f'--workdir={workdir}', *arguments])


def figures(folder):
  return json.loads((folder / 'evaluation.json').read_text())


def test_the_runs_own_split_by_default_and_any_folder_give_the_same(workdir, tmp_path, capsys):
  run(workdir)
  out = capsys.readouterr().out
  assert '15 images, each once' in out and 'apple tree' in out and 'ensemble' in out
  own = figures(workdir / 'evaluation')
  assert own['data'] == 'the split val' and {e['images'] for e in own['resolutions'].values()} == {15}
  assert (workdir / 'results.json').read_text() == 'as it was'
  for file in ('classes.csv', 'confusion.csv', 'confusion.png', 'mistakes.csv', 'mistakes.png'):
    assert (workdir / 'evaluation' / file).stat().st_size > 0
  by_number = write_folder(tmp_path / 'by_number', ['000', '1', '2', '3', '4'])
  (by_number / '1' / 'broken.jpg').write_bytes(b'no image')
  run(workdir, f'--data={by_number}', f'--out={tmp_path / "out"}', f'--json={tmp_path / "numbers.json"}')
  told = capsys.readouterr()
  assert 'broken.jpg: not an image file' in told.err and '1 could not be read' in told.out
  numbered = json.loads((tmp_path / 'numbers.json').read_text())
  assert [e['reason'] for e in numbered['unreadable']] == ['not an image file (8 bytes)']
  for key in ('resolutions', 'ensemble', 'classes'):
    assert numbered[key] == own[key]
  with open(tmp_path / 'out' / 'confusion.csv', newline='') as file:
    rows = list(csv.reader(file))
  assert [row[0] for row in rows[1:]] == list(NAMES)
  assert sum(int(n) for row in rows[1:] for n in row[1:]) == 15


def test_a_few_classes_at_one_resolution_that_was_not_trained(workdir, tmp_path, capsys):
  some = write_folder(tmp_path / 'some', ['Elm', 'apple_tree'])
  run(workdir, f'--data={some}', '--resolution=12', f'--out={tmp_path / "out"}', '--mistakes=2')
  assert 'interpolated between 8 and 16 px' in capsys.readouterr().err
  found = figures(tmp_path / 'out')
  assert list(found['resolutions']) == ['12'] and list(found['classes']) == ['apple tree', 'elm']
  with open(tmp_path / 'out' / 'mistakes.csv', newline='') as file:
    wrong = list(csv.DictReader(file))
  assert len(wrong) == 2 and all(row['label'] != row['guess'] and row['wrong_at'] == '12' for row in wrong)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--data=nowhere'], "^error: --data: got 'nowhere', no folder, and as a split: config.data.dir: no folder"),
    (['--json=nowhere/numbers.json'], '^error: nowhere/numbers.json: no folder .*, expected one to write to'),
    (['--step=7'], '^error: '),
  ],
)
def test_what_is_not_there_is_one_line(workdir, arguments, message):
  with pytest.raises(SystemExit, match=message) as error:
    run(workdir, *arguments)
  assert '\n' not in str(error.value)


def test_folders_that_are_no_classes_are_listed(workdir, tmp_path):
  other = write_folder(tmp_path / 'other', ['birch', 'oak', 'pine'])
  with pytest.raises(SystemExit, match=r"^error: .*other: 2 of 3 folders .*: 'oak', 'pine'; expected"):
    run(workdir, f'--data={other}')
  (tmp_path / 'flat').mkdir()
  with pytest.raises(SystemExit, match=r'^error: .*flat: no class folders, expected .*/flat/<class>/\*.jpg'):
    run(workdir, f'--data={tmp_path / "flat"}')


def test_some_of_its_classes_are_scored_by_their_names(workdir, tmp_path):
  run(workdir, f'--out={tmp_path / "all"}')
  run(workdir, f'--out={tmp_path / "some"}', "--config.data.classes=('elm','birch')")
  every, some = (figures(tmp_path / name)['classes'] for name in ('all', 'some'))
  assert set(some) == {'elm', 'birch'} and all(some[name] == every[name] for name in some)


@pytest.mark.parametrize('classes', ["('elm','birch')", "('birch','apple tree','cedar','elm','fir')"])
def test_a_report_is_on_all_of_them_in_their_order(workdir, classes, tmp_path):
  command = ['report', f'--workdir={workdir}', f'--out={tmp_path}/page.html', '--crop-fraction=1.0']
  with pytest.raises(SystemExit, match="^error: config.data.classes: got .*birch.*, expected the network's classes, i"):
    cli.main([*command, f'--config.data.classes={classes}'])


def test_an_imported_network_has_no_data_of_its_own(workdir, tmp_path):
  found = trained.read(workdir)
  found.config.data.source, found.config.data.dir = 'tfds', ''
  trained.save(trained.Trained(found.network, found.config, 0, True, {'source': 'elsewhere'}), tmp_path)
  for given, got in (([], 'nothing'), (['--data=val'], "'val', no folder")):
    with pytest.raises(SystemExit, match=f'^error: --data: got {got}, and .* holds an imported network; expected a'):
      run(tmp_path, *given)


@pytest.mark.slow
def test_an_imagenet_network_on_folders_named_by_numbers(shared_data, tmp_path):
  """Right of 1,000 photographs of ten classes, as under torch and PIL; one more or less may turn at a tie."""
  weights = shared_data / 'weights' / 'mobilenet_v2_imagenet.pth'
  sizes = '--resolutions=224,192,160'
  cli.main(['import', str(weights), '--model=mobilenetv2', sizes, f'--workdir={tmp_path}/net'])
  run(tmp_path / 'net', f'--data={shared_data / "nette1000"}')
  right = [1000 * entry['top1'] for entry in figures(tmp_path / 'net' / 'evaluation')['resolutions'].values()]
  np.testing.assert_allclose(right, [699, 700, 663], atol=1.01)
