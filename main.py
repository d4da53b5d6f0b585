"""As `resjax train`: python main.py --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...]."""

import os
import signal
import sys

if __name__ == '__main__':
  # Until the libraries are there, which takes seconds, Ctrl-C ends at once: some make other errors of it.
  usual = signal.getsignal(signal.SIGINT)
  if usual is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b'Stopped\n'), os._exit(130)))
  from resjax import cli

  signal.signal(signal.SIGINT, usual)
  sys.argv.insert(1, 'train')
  cli.main()
