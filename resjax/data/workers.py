"""How many processes make batches: by the processors, and by how much there is to do."""

import os
import pathlib
import sys

from ml_collections import ConfigDict

from resjax.data.sources import IN_MEMORY

# Images for which starting processes, some seconds, does not pay.
_FEW = 20_000


def processes(config: ConfigDict, images: float) -> int:
  """Returns how many worker processes make batches; 0: threads of this one do. No batch depends on it.

  Where `config.data.workers` is -1, it goes by the processors that this process may use: none where one process's
  threads keep them busy, where images are in memory or few, and where a script would run again in each of them.

  Args:
    config: Read: data.
    images: That are to come.

  Raises:
    ValueError: There are to be some, and the main script does not work below `if __name__ == '__main__'`.
  """
  data = config.data
  if data.workers > 0 and not _may_be_imported():
    raise ValueError(
      f'config.data.workers: got {data.workers} in a script that runs again in each of these processes; expected its '
      "work below `if __name__ == '__main__':`, or 0"
    )
  if data.workers >= 0:
    return data.workers
  count = processors()
  cheap = data.source in IN_MEMORY or data.cache == 'memory'
  few = cheap or images < _FEW or count <= data.threads
  return 0 if few or not _may_be_imported() else count // data.threads


def _may_be_imported() -> bool:
  """Whether the main script, which new processes import, works below `if __name__ == '__main__'`, or there is none."""
  main = sys.modules['__main__']
  path, spec = getattr(main, '__file__', None), getattr(main, '__spec__', None)
  if spec is not None and spec.name.endswith('__main__'):  # python -m PACKAGE, which they do not import
    return True
  try:
    return path is None or '__main__' in pathlib.Path(path).read_text(encoding='utf-8')
  except (OSError, ValueError):  # a program that was packed
    return True


def processors() -> int:
  """Returns how many processors this process may use."""
  if hasattr(os, 'process_cpu_count'):  # since Python 3.13
    return os.process_cpu_count() or 1
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
