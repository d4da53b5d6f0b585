"""As `resjax train`: python main.py --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...]."""

import sys

from resjax import cli

if __name__ == '__main__':
  cli.main(['train', *sys.argv[1:]])
