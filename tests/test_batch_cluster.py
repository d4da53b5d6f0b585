"""The script of docs/batch.md on two workers of Ray, one of them killed: a row for every image, once."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import networks
import numpy as np
import pytest
from PIL import Image

import resjax
from resjax.exporting import bundle

ROOT = pathlib.Path(__file__).parents[1]
IMAGES = 2000


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('ray') is None, reason="needs Ray: pip install 'ray[data]'")
def test_every_image_has_one_row_though_a_worker_is_killed(tmp_path):
  (script,) = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'batch.md').read_text(), re.DOTALL)
  (tmp_path / 'archive.py').write_text(script)
  bundle.write(networks.tiny(), tmp_path / 'bundle')
  for name in ('images', 'marks'):
    (tmp_path / name).mkdir()
  rng, files = np.random.default_rng(0), [tmp_path / 'images' / f'{i:04}.jpg' for i in range(IMAGES)]
  for i, file in enumerate(files):
    Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((40, 32)).save(file)
    if i % 100 == 7:
      file.write_bytes(file.read_bytes()[:200])
  environment = os.environ | {'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'RAY_USAGE_STATS_ENABLED': '0'}
  names = ('marks', 'archive.py', 'bundle', 'images', 'out')
  command = [sys.executable, ROOT / 'tests' / 'archive_cluster.py', *(tmp_path / name for name in names)]
  finished = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
  assert finished.returncode == 0, finished.stderr[-5000:]
  seen = json.loads(finished.stdout.splitlines()[-1])
  assert seen['code'] == 0 and 0 < seen['done'] < IMAGES and not seen['lives'] and seen['others'] == 1, seen

  table = pytest.importorskip('pyarrow.parquet').read_table(tmp_path / 'out').to_pylist()
  found = {row['path']: row for row in table}
  assert len(table) == len(found) == IMAGES
  for p in resjax.Classifier.load(tmp_path / 'bundle').predict(files):
    row = found[p.image]
    assert (row['class'], row['name'], row['error']) == ((-1, '', p.error) if p.error else (p.class_index, p.label, ''))
    if not p.error:
      assert row['probability'] == pytest.approx(p.probability, abs=1e-6) and row['cost'] == p.macs
