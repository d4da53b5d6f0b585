"""`resjax export`: what it writes where, what it leaves as it is, what it refuses; others read what it wrote."""

import json
import os
import re

import jax
import networks
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from resjax import cli, trained
from resjax.commands import export
from resjax.inference import Classifier
from resjax.interop import torch as layout


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """An imported network's, calibrated."""
  folder = tmp_path_factory.mktemp('runs') / 'run'
  network = networks.tiny()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trained, 'of_config', lambda *_: network)
    networks.save_imported(network, folder)
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 20, 3), np.uint8)
    Classifier(network, workdir=folder, max_batch=4).calibrate(images)
  return folder


@pytest.fixture
def run(workdir, monkeypatch, capsys):
  """Runs the command; returns what it printed."""
  network = networks.tiny()
  monkeypatch.setattr(trained, 'of_config', lambda *_: network)

  def command(*flags):
    cli.main(['export', f'--workdir={workdir}', *flags])
    return capsys.readouterr()

  return command


def test_every_format_has_a_place_of_its_own(run, workdir):
  for flags, name in [
    (['--format=onnx'], 'onnx'),
    (['--format=onnx', '--resolution=8', '--softmax'], '8.onnx'),
    (['--format=stablehlo'], 'network.stablehlo'),
    (['--format=torch'], 'network.safetensors'),
    (['--format=torch', '--resolution=8'], '8.safetensors'),
  ]:
    assert run(*flags).out.startswith(f'In {workdir / name}: 0.')
  assert onnx.load(workdir / '8.onnx').graph.output[0].name == 'probabilities'
  network = networks.tiny()
  for name, expected in (('8', layout.state_dict(network, 8)), ('network', layout.rsnets_state_dict(network))):
    jax.tree.map(np.testing.assert_array_equal, load_file(workdir / f'{name}.safetensors'), expected)


def test_torch_reads_what_is_named_pth(run, tmp_path):
  torch = pytest.importorskip('torch')
  run('--format=torch', '--resolution=16', f'--out={tmp_path}/a.pth')
  found = torch.load(tmp_path / 'a.pth', weights_only=True)
  for name, value in layout.state_dict(networks.tiny(), 16).items():
    np.testing.assert_array_equal(found[name].numpy(), value)


def test_a_bundle_is_set_to_the_budgets_that_the_calibration_reaches(run, workdir, tmp_path):
  run('--format=bundle', f'--out={tmp_path}/bundle')
  manifest = json.loads((tmp_path / 'bundle' / 'manifest.json').read_text())
  assert list(manifest['knobs']['cascade']) == ['0.3', '0.4', '0.5', '0.6', '0.7', '0.8', '0.9']
  assert manifest['origin']['source'] == 'hf-hub:me/it' and manifest['origin']['license'] == 'MIT'
  assert json.loads((tmp_path / 'bundle' / 'costs.json').read_text())['tables'][0]['of']['runtime'].startswith('onnx')
  run('--format=bundle', f'--out={tmp_path}/other', '--budgets=0.55,110000', '--no-costs')
  assert not (tmp_path / 'other' / 'costs.json').exists()
  knobs = json.loads((tmp_path / 'other' / 'manifest.json').read_text())['knobs']['cascade']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trained, 'of_config', lambda *_: networks.tiny())
    classifier = Classifier.load(workdir, max_batch=4)
  assert knobs == {budget: classifier.router('cascade', budget).knob for budget in ('0.55', '110000')}


def test_a_bundle_is_predicted_with_by_the_command(run, tmp_path, capsys):
  from PIL import Image

  run('--format=bundle', f'--out={tmp_path}/bundle', '--no-costs')
  Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / 'a.png')
  lines = []
  for flag in ('workdir', 'bundle'):
    cli.main(['predict', str(tmp_path / 'a.png'), f'--{flag}={tmp_path}/bundle', '--budget=0.6', '--max-batch=4'])
    found = capsys.readouterr()
    assert '1 images in' in found.err
    lines.append(found.out)
  assert lines[0] == lines[1] != ''
  refused = r'^error: --workdir: got .*bundle, a bundle, expected one of a run; predict, calibrate and serve take'
  for command in ('report', 'evaluate', 'benchmark'):
    for flag in ('workdir', 'bundle'):
      with pytest.raises(SystemExit, match=refused):
        cli.main([command, f'--{flag}={tmp_path}/bundle'])
  with pytest.raises(SystemExit, match=r'^error: IMAGE: none given, and .*bundle is a bundle; expected files'):
    cli.main(['calibrate', f'--bundle={tmp_path}/bundle'])


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--bundle={run}'], r'argument --bundle: got .*run, without a manifest\.json, expected a bundle \(--workdir'),
    (['--bundle={bundle}', '--workdir={run}'], r'argument --workdir: not allowed with argument --bundle'),
    ([], r'one of the arguments --workdir --bundle is required'),
  ],
)
def test_a_bundle_is_what_it_says_and_one_network_is_named(workdir, tmp_path, capsys, flags, message):
  (tmp_path / 'manifest.json').touch()
  with pytest.raises(SystemExit):
    cli.main(['predict', 'a.png', *(flag.format(run=workdir, bundle=tmp_path) for flag in flags)])
  assert re.search(message, capsys.readouterr().err)


def test_what_is_there_stays_unless_it_may_be_replaced(run, tmp_path):
  out = tmp_path / 'a.onnx'
  out.write_text('mine')
  with pytest.raises(SystemExit, match=r'^error: --out: .*a\.onnx is there already, expected another, or --overwrite$'):
    run('--format=onnx', '--resolution=8', f'--out={out}')
  assert out.read_text() == 'mine'
  run('--format=onnx', '--resolution=8', f'--out={out}', '--overwrite')
  assert onnx.load(out).producer_name == 'resjax' and list(tmp_path.iterdir()) == [out]


def test_what_fails_leaves_nothing_and_takes_nothing_away(tmp_path):
  out = tmp_path / 'bundle'
  out.mkdir()
  (out / 'old.onnx').write_text('old')
  with pytest.raises(OSError, match='full'), export.whole(out, overwrite=True) as part:
    part.mkdir()
    (part / 'half').write_text('half')
    raise OSError('the disk is full')
  assert [path.name for path in tmp_path.rglob('*')] == ['bundle', 'old.onnx']
  with pytest.raises(FileNotFoundError), export.whole(out, overwrite=True):
    pass  # nothing was written that could take its place
  assert [path.name for path in tmp_path.rglob('*')] == ['bundle', 'old.onnx']
  with export.whole(out, overwrite=True) as part:
    part.mkdir()
    (part / 'new.onnx').write_text('new')
  assert [path.name for path in tmp_path.rglob('*')] == ['bundle', 'new.onnx']


@pytest.mark.parametrize(
  ('inside', 'name'),
  [
    ({'cat.jpg': 'mine'}, 'cat.jpg'),
    ({'224.onnx': '', 'notes.txt': 'mine'}, 'notes.txt'),
    ({'0/manifest.ocdbt': 'a step of a run'}, '0'),  # its checkpoints
    ({'checkpoints/0/manifest.ocdbt': 'a run'}, 'checkpoints'),
    ({'weights.bin/mine': ''}, 'weights.bin'),
  ],
)
def test_a_folder_that_holds_what_no_export_wrote_is_never_replaced(tmp_path, inside, name):
  for path, content in inside.items():
    (tmp_path / 'out' / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'out' / path).write_text(content)
  message = f"--out: .*out holds '{name}', which no export wrote; expected another folder"
  with pytest.raises(FileExistsError, match=message), export.whole(tmp_path / 'out', overwrite=True):
    raise AssertionError('it is told before any work is done')
  assert {str(path.relative_to(tmp_path / 'out')) for path in tmp_path.rglob('*') if path.is_file()} == set(inside)


def test_a_link_stays_a_link_and_what_is_no_file_stays(tmp_path):
  (tmp_path / 'kept').mkdir()
  (tmp_path / 'link').symlink_to('kept')
  with export.whole(tmp_path / 'link', overwrite=True) as part:
    part.mkdir()
    (part / '8.onnx').touch()
  assert (tmp_path / 'link').is_symlink() and [path.name for path in (tmp_path / 'kept').iterdir()] == ['8.onnx']
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(FileExistsError, match='pipe is no file, expected one'), export.whole(tmp_path / 'pipe', True):
    pass


def test_a_bundle_is_asked_for_the_budget_that_it_was_exported_with(run, tmp_path):
  run('--format=bundle', f'--out={tmp_path}/bundle', '--no-costs', '--budgets=123456.75')
  assert list(json.loads((tmp_path / 'bundle' / 'manifest.json').read_text())['knobs']['cascade']) == ['123456.75']
  assert Classifier.load(tmp_path / 'bundle', max_batch=4).router('cascade', 123456.75)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--format=torch', '--softmax'], '--softmax: got it with --format=torch, expected onnx or stablehlo'),
    (['--format=onnx', '--budgets=0.5'], '--budgets: got it with --format=onnx, expected bundle'),
    (['--format=onnx', '--with=stablehlo'], '--with: got it with --format=onnx, expected bundle'),
    (['--format=onnx', '--no-costs'], '--no-costs: got it with --format=onnx, expected bundle'),
    (['--format=bundle', '--budgets=5ms'], '--budgets: got 5ms, expected shares or multiply-adds: milliseconds'),
    (['--format=bundle', '--budgets=0.01'], r'--budgets: got 0\.01, expected 0\.[0-9]+ to 1.* with router .cascade'),
    (['--format=onnx', '--out=nowhere/a'], 'nowhere/a: no folder .*nowhere, expected one to write to'),
  ],
)
def test_options_that_do_not_fit_are_named(run, flags, message):
  with pytest.raises(SystemExit, match=f'^error: {message}'):
    run(*flags)
