"""Where a network's data are may be said anew where it is used: an imported one has none, others have moved."""

import argparse
import tarfile
from pathlib import Path

import pytest

from resjax import cli
from resjax.commands import options


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  root = tmp_path_factory.mktemp('stored')
  with tarfile.open(Path(__file__).parent / 'stored' / '0.1.0.tar.gz') as archive:
    archive.extractall(root, filter='data')
  return root / '0.1.0' / 'drnet'


def load(workdir, *fields):
  parser = argparse.ArgumentParser()
  options.add_workdir(parser)
  options.add_max_pixels(parser)
  parsed = parser.parse_args([f'--workdir={workdir}'])
  parsed.fields = list(fields)
  return options.load(parsed)


def test_data_are_named_anew_and_the_network_stays(workdir):
  before, run = load(workdir)
  classifier, config = load(
    workdir, '--config.data.source=folder', '--config.data.dir=photos', '--config.data.size', '3'
  )
  assert (config.data.source, config.data.dir, config.data.size) == ('folder', 'photos', 3)
  assert run.data.source == 'fake' and classifier.network.digest == before.network.digest


@pytest.mark.parametrize('field', ['model.width=2', 'data.normalize=unit', 'data.wdth=3', 'eval.crop_fraction=1.0'])
def test_what_is_not_where_the_data_are_is_refused(workdir, field):
  with pytest.raises(
    ValueError, match=rf'^--config\.{field}: got with --workdir, expected some of data\.source, .*data\.dir'
  ):
    load(workdir, f'--config.{field}')


@pytest.mark.parametrize('command', ['report', 'calibrate', 'benchmark'])
def test_the_commands_that_read_data_take_them(workdir, tmp_path, command):
  fields = ['--config.data.source=folder', f'--config.data.dir={tmp_path}/nowhere', '--config.eval.calibration_split=']
  with pytest.raises(SystemExit, match=r'^error: config\.data\.dir: .*nowhere'):
    cli.main([command, f'--workdir={workdir}', *fields])


def test_others_do_not(workdir, capsys):
  with pytest.raises(SystemExit):
    cli.main(['predict', 'a.png', f'--workdir={workdir}', '--config.data.dir=photos'])
  assert "unexpected argument '--config.data.dir=photos'" in capsys.readouterr().err
