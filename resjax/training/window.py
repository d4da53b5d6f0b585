"""What a run says of its steps: metrics read one step behind the device, and the seconds that training took."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from resjax.training.metrics import MetricWriter, Progress


class Window:
  """The metrics since the last line: read one step behind the device, checked, averaged, written.

  Args:
    writer: Gets the mean of each metric every `log_steps` steps.
    progress: Gets every step.
    log_steps: Steps between two lines.
  """

  def __init__(self, writer: MetricWriter, progress: Progress, log_steps: int):
    self._writer, self._progress, self._log_steps = writer, progress, log_steps
    self._pending: tuple[int, dict[str, Any]] | None = None
    self._rows: list[dict[str, float]] = []

  def add(self, step: int, metrics: dict[str, Any]) -> None:
    """Takes a step's metrics as they are on the device, and reads those of the step before.

    Raises:
      FloatingPointError: They are not finite.
    """
    self.flush()
    self._pending = (step, metrics)

  def flush(self, last: bool = False) -> None:
    """Waits for the step that is on its way and reads its metrics.

    Args:
      last: Write what has come since the last line.

    Raises:
      FloatingPointError: They are not finite: names the step and each term, with its resolution.
    """
    if self._pending is None:
      return
    step, values = self._pending[0], jax.device_get(self._pending[1])
    self._pending = None
    bad = {name: float(v) for name, v in values.items() if not math.isfinite(v) and _counts(name, values)}
    if bad:
      terms = ', '.join(f'{name} = {value}' for name, value in sorted(bad.items()))
      raise FloatingPointError(
        f'step {step}: {terms}, expected finite numbers; the checkpoints saved before are good '
        '(try a lower config.optimizer.learning_rate or a warm-up)'
      )
    self._rows.append(values)
    self._progress.update(step, f'loss {float(values["loss"]):.3f}')
    if last or step % self._log_steps == 0:
      line = {}
      for name in values:
        if counted := [float(row[name]) for row in self._rows if _counts(name, row)]:
          line[f'train/{name}'] = sum(counted) / len(counted)
      if self._progress.images_per_second is not None:
        line['train/images_per_second'] = self._progress.images_per_second
      self._writer.scalars(step, line)
      self._rows = []


def _counts(name: str, row: Mapping[str, Any]) -> bool:
  """Whether a metric of a step says something: `loss_160` where 160 was not passed over, as `drawn_160` tells."""
  kind, _, place = name.partition('_')
  return kind == 'drawn' or row.get(f'drawn_{place}', 1.0) > 0


class Stopwatch:
  """Seconds since it was made, pauses left out, on top of those of earlier lives."""

  def __init__(self, seconds: float):
    self._start = time.monotonic() - seconds

  @property
  def seconds(self) -> float:
    """The seconds so far."""
    return time.monotonic() - self._start

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """What runs inside does not count."""
    begin = time.monotonic()
    yield
    self._start += time.monotonic() - begin
