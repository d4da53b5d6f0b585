"""benchmarks/imagenet.py: hours of runs that nobody made, by hand for small ones."""

import sys

import pytest

from benchmarks import imagenet
from benchmarks.imagenet import TRAIN, VAL

MEASURED = {
  'machine': {'cpus': 16},
  'parts': {
    part: {
      'figures': [
        {'what': 'step', 'way': 'two_pass', 'flops': {'median': 1.0}},
        {'what': 'step', 'way': 'joint', 'flops': {'median': share * imagenet.H200}},
        {'what': 'loader', 'host_images_per_s': 1600.0},
      ]
    }
    for part, share in (('train resnet18', 0.2), ('train resnet50', 0.1))
  },
}


def test_work_is_three_forward_passes_and_one_to_score():
  (row,) = imagenet.rows_of('train resnet18', 'quickstart', ('quickstart',))
  macs = 12_501_632 + 3_125_888 + 781_952
  assert (row.epochs, row.macs, row.params) == (3.5, macs, 78_042)
  assert row.work == pytest.approx((3 * TRAIN * 3.5 + VAL) * macs)
  (row,) = imagenet.rows_of('train resnet18', 'drnet_quickstart', ('drnet_quickstart',))
  own = 69_312
  assert (row.epochs, row.macs) == (5.5, macs + own)
  assert row.work == pytest.approx(3 * TRAIN * (5.5 * macs + 2 * own) + VAL * 4.5 * (macs + own))


def test_a_run_takes_what_its_chips_or_its_hosts_take():
  slowly = imagenet.loaded(MEASURED)
  assert slowly == 100
  peak = 8 * imagenet.H200
  dear = imagenet.Row('', '', epochs=1e-9, macs=1, work=0.2 * peak * 3600, params=1)
  assert imagenet.hours(dear, '8xH100', 0.2, slowly) == pytest.approx((2, 4))
  cheap = dear._replace(epochs=192 * 415 * 3600 / TRAIN, work=1)
  assert imagenet.hours(cheap, '8xH100', 0.2, slowly) == pytest.approx((1, 4.15))


def test_the_page_is_checked_and_prices_are_of_machines(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(imagenet, 'STUDIES', (('train resnet18', 'quickstart', ('quickstart',)),))
  monkeypatch.setattr(imagenet.json, 'loads', lambda text: MEASURED)
  page = tmp_path / 'page.md'
  page.write_text('Before.\n<!-- budget -->\nold\n<!-- end of budget -->\nAfter.\n')

  def main(*arguments):
    monkeypatch.setattr(sys, 'argv', ['imagenet.py', f'--page={page}', *arguments])
    imagenet.main()

  with pytest.raises(SystemExit, match=r'page\.md is not what is counted'):
    main('--check')
  main('--price=v5e-8=10')
  text = page.read_text()
  assert 'resjax study quickstart' in text and text.startswith('Before.\n') and text.endswith('-->\nAfter.\n')
  assert 'reach 20 % (resnet18) of their peak' in text and 'old' not in text
  main('--check', '--price=v5e-8=10')
  with pytest.raises(SystemExit, match='--price: got v4-8, expected one of v5e-8, 8xH100'):
    main('--price=v4-8=3')
