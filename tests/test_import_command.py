"""`resjax import`: the workdir that it writes, how images are prepared, what is refused; real weights."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

import resjax
from resjax import cli, interop, trained
from resjax.data.crops import evaluation_crops
from resjax.interop import torch as ours

torch = pytest.importorskip('torch')

import torch_models  # noqa: E402
from twins import CLASSES, TOLERANCE, arrays, assert_same_dict, narrow_mobilenet, randomised, rsnets  # noqa: E402


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """The file of a narrow MobileNetV2, its state, and its module in torch."""
  return narrow_mobilenet(tmp_path_factory.mktemp('weights'))


def photographs(folder, count=4):
  rng = np.random.default_rng(0)
  folder.mkdir(parents=True)
  for i in range(count):
    Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(folder / f'{i}.png')
  return folder


def test_the_command_writes_a_workdir_that_says_how_images_are_prepared(weights, tmp_path, capsys):
  path, twin = weights
  (tmp_path / 'labels').write_text('\n'.join('abcdefg') + '\n')
  flags = ['--resolutions=40,32', '--mean=0.5,0.4,0.3', '--std=0.2,0.2,0.25', '--crop-fraction=0.9']
  flags += ['--interpolation=bicubic', f'--labels={tmp_path}/labels', f'--workdir={tmp_path}/run']
  cli.main(['import', str(path), *flags])
  out = capsys.readouterr().out
  assert 'mobilenetv2, 7 classes, at 40, 32 px\n' in out
  assert 'images: bicubic, crop fraction 0.9, mean 0.5, 0.4, 0.3, deviation 0.2, 0.2, 0.25\n' in out
  assert f'In {tmp_path}/run; now: resjax predict IMAGE ... --workdir={tmp_path}/run\n' in out
  found = trained.read(tmp_path / 'run')
  assert found.finished and found.step == 0
  assert found.origin == {'source': str(path), 'architecture': 'mobilenetv2_035', 'license': None}
  network = found.network
  assert network.class_names == tuple('abcdefg') and network.resolutions == (40, 32)
  assert network.preprocessing.normalize == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.25))
  assert network.preprocessing.interpolation == 'bicubic' and network.preprocessing.crop_fraction == 0.9
  assert_same_dict(ours.state_dict(network, 32), arrays(twin.state_dict()))
  resjax.config.validate(found.config)
  with pytest.raises(SystemExit, match=r'^error: workdir: .*run holds a run already, expected a new folder$'):
    cli.main(['import', str(path), f'--workdir={tmp_path}/run'])


def test_an_imported_network_predicts_as_torch_does_and_meets_a_budget(weights, tmp_path, capsys):
  path, twin = weights
  workdir = tmp_path / 'run'
  interop.save(
    interop.read(path, resolutions=(40, 32), interpolation='bicubic', mean=(0.5,) * 3, std=(0.2,) * 3), workdir
  )
  folder = photographs(tmp_path / 'photos')
  classifier = resjax.Classifier.load(workdir, max_batch=1)
  found = classifier.predict(str(folder), resolution=32)
  for prediction in found:
    with Image.open(prediction.image) as image:
      image = image.resize((int(32 / 0.875) * 60 // 50, int(32 / 0.875)), Image.Resampling.BICUBIC)
    left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
    pixels = (np.float32(image.crop((left, top, left + 32, top + 32))) / 255 - 0.5) / np.float32(0.2)
    with torch.no_grad():
      expected = twin(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]).softmax(-1)[0]
    assert prediction.class_index == int(expected.argmax())
    assert prediction.probability == pytest.approx(float(expected.max()), rel=TOLERANCE)
  with pytest.raises(SystemExit, match=r'^error: .*; calibrate first: resjax calibrate IMAGE \.\.\. --workdir=.*run$'):
    cli.main(['predict', str(folder), f'--workdir={workdir}', '--max-batch=1', '--budget=0.8'])
  with pytest.raises(SystemExit, match=r'^error: IMAGE: none given, and .*run holds an imported network; expected'):
    cli.main(['calibrate', f'--workdir={workdir}'])
  cli.main(['calibrate', str(folder), f'--workdir={workdir}', '--max-batch=1'])
  cli.main(['predict', str(folder), f'--workdir={workdir}', '--max-batch=1', '--budget=0.8'])
  assert 'multiply-adds each' in capsys.readouterr().err
  for command, what in (('benchmark', '--images'), ('report', '--config.data')):
    with pytest.raises(SystemExit, match=rf'^error: {what}: none given, and .*run holds an imported network; expected'):
      cli.main([command, f'--workdir={workdir}', '--max-batch=1'])


def test_names_that_are_no_text_are_told(weights, tmp_path):
  (tmp_path / 'labels').write_bytes(b'a\n\xff')
  with pytest.raises(
    SystemExit, match=r"^error: --labels: .*labels: 'utf-8' codec .*; expected UTF-8, a class's name a"
  ):
    cli.main(['import', str(weights[0]), f'--labels={tmp_path}/labels', f'--workdir={tmp_path}/run'])


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (
      '\ufeffa\r\nb\r\n\r\nd\x1b[2J\r\ne\tx\r\n f \r\ng\u2028h\r\n\r\n\n',
      ('a', 'b', '2', r'd\x1b[2J', 'e x', 'f', r'g\u2028h'),
    ),
    ('a\nb\n', None),
    (json.dumps(list('abcdefg')), None),
  ],
)
def test_a_file_of_names_is_read_however_it_was_written(weights, tmp_path, text, expected):
  (tmp_path / 'labels').write_text(text, encoding='utf-8', newline='')
  command = ['import', str(weights[0]), f'--labels={tmp_path}/labels', f'--workdir={tmp_path}/run', '--resolutions=32']
  if expected is None:
    with pytest.raises(SystemExit, match=r'^error: class_names: got [12], expected 7, one for each class$'):
      cli.main(command)
  else:
    cli.main(command)
    assert trained.load(tmp_path / 'run').class_names == expected


def test_training_does_not_go_on_with_an_imported_network(weights, tmp_path):
  path, _ = weights
  fields = ['--config.data.source=fake', '--config.data.size=8', '--config.batch_size=8', '--config.epochs=1']
  imported = interop.read(path, resolutions=(40, 32), fields=fields)
  interop.save(imported, tmp_path)
  with pytest.raises(ValueError, match=r'^workdir .* holds an imported network, expected another --workdir'):
    resjax.train_and_evaluate(imported.config, tmp_path)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'model': 'resnet19'}, r"^model: got 'resnet19', expected one of resnet18, "),
    ({'model': 'resnet18'}, r"^model: got 'resnet18', expected 'mobilenetv2_035', which .*a\.pth says that it is$"),
    ({'model': 'mobilenetv2'}, r"^model: got 'mobilenetv2', expected 'mobilenetv2_035'"),
    ({'mean': (0, 0, 0)}, r'^mean: got one of mean and std, expected both or neither$'),
    (
      {'mean': (0, 0, 0), 'std': (1, 1, 0)},
      r'^config\.data\.normalize: got \(\(0, 0, 0\), \(1, 1, 0\)\), expected',
    ),
    (
      {'mean': (0, 0), 'std': (1, 1)},
      r'^config\.data\.normalize: got \(\(0, 0\), \(1, 1\)\), expected one of',
    ),
    (
      {'mean': (127, 127, 127), 'std': (58, 58, 58)},
      r'^mean: got \(127, 127, 127\), expected those of values from 0 to 1: divide them by 255$',
    ),
    ({'mean': (0, 0, 0), 'std': (0.2, 0.2, 58)}, r'^std: got \(0\.2, 0\.2, 58\), expected those'),
    ({'crop_fraction': 0.0}, r'^config\.eval\.crop_fraction: got 0\.0, expected more than 0, at most 1$'),
    ({'interpolation': ''}, r"^config\.eval\.interpolation: got '', expected one of bilinear, bicubic$"),
    ({'crop_fraction': 1.5}, r'^config\.eval\.crop_fraction: got 1\.5, expected more than 0, at most 1$'),
    ({'interpolation': 'lanczos'}, r"^config\.eval\.interpolation: got 'lanczos', expected one of bilinear, bicubic$"),
    ({'resolutions': (32, 40)}, r'^config\.resolutions: got \(32, 40\), expected the highest first$'),
    ({'class_names': 'abc'}, r'^class_names: got 3, expected 7, one for each class$'),
    ({'fields': ['--config.batch=3']}, r'^--config\.batch: no such field'),
  ],
  ids=str,
)
def test_options_that_do_not_fit_are_named(weights, options, message):
  with pytest.raises(ValueError, match=message) as error:
    interop.read(weights[0], **options)
  assert '\n' not in str(error.value)


def test_a_file_that_does_not_say_what_it_is_is_told_by_its_keys(weights, tmp_path):
  state = weights[1].state_dict()
  torch.save(state, tmp_path / 'a.pth')
  found = interop.read(tmp_path / 'a.pth', resolutions=(32,))
  assert found.config.model.width == 0.35
  assert found.notes[0] == 'model: taken for mobilenetv2_035 by its keys, which is all that the source says'
  with pytest.raises(
    ValueError, match=r"^model: got 'mobilenetv2', expected 'mobilenetv2_035', whose keys .*a\.pth has"
  ):
    interop.read(tmp_path / 'a.pth', 'mobilenetv2')
  torch.save({'fc.weight': torch.ones(3, 4)}, tmp_path / 'a.pth')
  with pytest.raises(
    ValueError, match=r'^model: missing, and .*a\.pth does not say it, nor has it the keys .*resnet18, '
  ):
    interop.read(tmp_path / 'a.pth')
  with pytest.raises(ValueError, match=r'a\.pth: the keys are not those of this model; missing: bn1\.bias, '):
    interop.read(tmp_path / 'a.pth', 'resnet18')


def test_the_command_takes_averaged_weights_where_that_is_meant(weights, tmp_path, capsys):
  state = weights[1].state_dict()
  torch.save({'state_dict': {k: 0 * v for k, v in state.items()}, 'state_dict_ema': state}, tmp_path / 'a.pth')
  cli.main(['import', str(tmp_path / 'a.pth'), '--ema', '--resolutions=32', f'--workdir={tmp_path}/run'])
  assert 'weights: the averaged ones (state_dict_ema)\n' in capsys.readouterr().out
  assert_same_dict(ours.state_dict(trained.load(tmp_path / 'run'), 32), arrays(state))


@pytest.mark.parametrize('resolution', ['', '32'])
def test_what_is_exported_comes_in_again_as_it_was(weights, tmp_path, resolution):
  """Bit for bit, with the preparation of images, which the layout alone would let one take for another."""
  options = {'mean': (0.5, 0.4, 0.3), 'std': (0.2, 0.2, 0.25), 'crop_fraction': 0.9, 'interpolation': 'bicubic'}
  there = interop.read(weights[0], resolutions=(40, 32), class_names='abcdefg', **options)
  interop.save(there, tmp_path / 'run')
  one = [f'--resolution={resolution}'] if resolution else []
  cli.main(['export', f'--workdir={tmp_path}/run', '--format=torch', f'--out={tmp_path}/a.safetensors', *one])
  sizes = (32,) if resolution else (40, 32)
  back = interop.read(tmp_path / 'a.safetensors', resolutions=sizes).network
  assert back.preprocessing == there.network.preprocessing and back.class_names == tuple('abcdefg')
  for size in sizes:
    assert_same_dict(ours.state_dict(back, size), ours.state_dict(there.network, size))
  given = interop.read(tmp_path / 'a.safetensors', resolutions=sizes, interpolation='bilinear').network
  assert given.preprocessing.interpolation == 'bilinear'


@pytest.mark.parametrize('old', [False, True])
def test_a_checkpoint_of_rs_nets_authors_is_read_as_they_keep_it(tmp_path, old):
  """From DataParallel, with the optimiser and numpy's numbers beside it; in both forms of torch's files."""
  states = [arrays(randomised(torch_models.create('resnet18', CLASSES), seed).state_dict()) for seed in range(3)]
  norms = {name for name in states[0] if name.rpartition('.')[0] + '.running_mean' in states[0]}
  states = [states[0] | {name: state[name] for name in norms} for state in states]
  kept = rsnets(states)
  checkpoint = {
    'epoch': 120,
    'arch': 'parallel_resnet18',
    'state_dict': {f'module.{name}': torch.from_numpy(value) for name, value in kept.items()},
    'best_acc0': np.float64(73.1),
    'optimizer': {'state': {0: {'momentum_buffer': torch.ones(3)}}, 'param_groups': [{'lr': 0.1}]},
  }
  torch.save(checkpoint, tmp_path / 'model_best.pth.tar', _use_new_zipfile_serialization=not old)
  found = interop.read(tmp_path / 'model_best.pth.tar', resolutions=(48, 40, 32))
  assert found.network.preprocessing.normalize == 'unit' and found.notes[0].startswith('classes: the source does not')
  interop.save(found, tmp_path / 'run')
  network = trained.load(tmp_path / 'run')
  np.testing.assert_array_equal(network.variables['params']['alpha'], [0, 1, 2])
  assert_same_dict(ours.rsnets_state_dict(network), kept)
  assert_same_dict(ours.state_dict(network, 32), states[2])


# --- real weights ---


@pytest.fixture(scope='module')
def mobilenet(tmp_path_factory):
  """An importer of the real MobileNetV2, used once; it returns the workdir."""
  workdir = tmp_path_factory.mktemp('mobilenet') / 'run'

  def make(shared_data):
    if not workdir.exists():
      cli.main(
        ['import', f'{shared_data}/weights/mobilenet_v2_imagenet.pth', '--model=mobilenetv2', f'--workdir={workdir}']
      )
    return workdir

  return make


def labelled(shared_data):
  folder = shared_data / 'photos152'
  with open(folder / 'labels.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  return [folder / row['file'] for row in rows], [int(row['class_index_0_based']) for row in rows]


def test_real_weights_give_torchs_logits_on_the_same_crops(shared_data, mobilenet):
  files, _ = labelled(shared_data)
  network = trained.load(mobilenet(shared_data))
  twin = torch_models.MobileNetV2(1000).eval()
  twin.load_state_dict(torch.load(shared_data / 'weights' / 'mobilenet_v2_imagenet.pth', weights_only=True))
  crop = evaluation_crops(network.preprocessing, (96,))
  crops = np.stack([crop(file.read_bytes())[0] for file in files[:4]])
  (inputs,) = resjax.preprocess.prepare((crops,), (96,), network.preprocessing.normalize)
  got = jax.jit(lambda v, x: network.model.apply(v, x, train=False))(network.view(96), inputs)
  with torch.no_grad():
    expected = twin(torch.from_numpy(np.array(np.asarray(inputs).transpose(0, 3, 1, 2)))).numpy()
  assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(('resolution', 'right'), [(224, 129), (192, 124), (160, 119), (128, 104), (96, 65)])
def test_real_weights_classify_real_photographs(shared_data, mobilenet, resolution, right):
  files, labels = labelled(shared_data)
  found = resjax.Classifier.load(mobilenet(shared_data), max_batch=8).predict(files, resolution=resolution)
  assert abs(sum(p.class_index == label for p, label in zip(found, labels)) - right) <= 1


def test_what_is_stored_is_json(weights):
  config = interop.read(weights[0], resolutions=(40,), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).config
  stored = json.loads(json.dumps(resjax.config.to_json(config)))
  back = resjax.config.complete({'config': stored, 'format': resjax.trained.formats.FORMAT}, 'here')
  assert back.data.normalize == config.data.normalize == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
