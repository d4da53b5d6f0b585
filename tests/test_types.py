"""A type checker sees what a user's script gets; that the package itself has no error, `.ci/run` says."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

SCRIPT = """
import numpy as np
import resjax
from resjax import recipes, routing

network = resjax.trained.load('runs/quickstart')
reveal_type(network)
reveal_type(network.preprocessing)
classifier = resjax.Classifier(network, max_batch=8)
reveal_type(classifier)
for prediction in classifier.predict(np.zeros((2, 32, 32, 3), np.uint8), budget=0.6):
  reveal_type(prediction.probability)
router = classifier.router('cascade', routing.Budget.parse('12ms'))
reveal_type(router.knob)
reveal_type(classifier.notes)
smaller, note = network.at((24, 32))
reveal_type(smaller)
reveal_type(note)
results = resjax.train_and_evaluate(recipes.make('quickstart'), 'runs/other')
reveal_type(results)
reveal_type(network.macs)
reveal_type(resjax.share)
classifier.predict('photos/', max_batch='many')
resjax.Classifier('runs/quickstart')
"""

SEEN = [
  'resjax.network.Network',
  'resjax.preprocess.Preprocessing',
  'resjax.inference.classifier.Classifier',
  'float | None',
  'float',
  'list[str]',
  'resjax.network.Network',
  'str',
  'dict[str, Any]',
  'tuple[int, ...]',
]


@pytest.mark.slow
def test_a_users_script_gets_real_types_and_real_errors(tmp_path):
  (tmp_path / 'script.py').write_text(SCRIPT)
  arguments = ['--config-file', ROOT / 'pyproject.toml', tmp_path / 'script.py']
  done = subprocess.run([sys.executable, '-m', 'mypy', *arguments], cwd=ROOT, capture_output=True, text=True)
  revealed = [text.replace('builtins.', '') for text in re.findall(r'Revealed type is "(.*)"', done.stdout)]
  assert revealed[: len(SEEN)] == SEEN, done.stdout
  assert revealed[-1].startswith('def (')
  assert re.findall(r'error: (.*?) ', done.stdout) == ['Unexpected', 'Argument'], done.stdout
