"""What a run tells while it trains: metrics on disk, progress on the terminal."""

import collections
import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping

import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress

from resjax.training.tracking import Tracker


class MetricWriter:
  """Writes metrics as JSON lines and as TensorBoard events, without TensorFlow.

  `workdir/metrics.jsonl` gets one line per call of `scalars`, written through at once:
  `{"step": 50, "train/loss_224": 1.25}`. JSON has no word for what is not finite; such values
  stand as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, which Python's `float` reads back.
  `workdir/tensorboard` holds the events.

  A context manager: leaving it closes the files.

  Args:
    workdir: Folder of the run, made where it is missing.
    enabled: False writes nothing and makes no file; pass `jax.process_index() == 0`.
    tracker: Gets the scalars, too, and is closed with the files.
    resume_step: The step the run continues from: what a previous life wrote after it is dropped,
      so that no step stands twice. None starts anew and drops everything.

  Raises:
    ValueError: `metrics.jsonl` holds a line that is not one of ours (other than a last line that
      was cut short, which is dropped).
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    enabled: bool = True,
    resume_step: int | None = None,
    tracker: Tracker | None = None,
  ):
    self._lines = self._events = None
    self._tracker = tracker
    if not enabled:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    last_step = -1 if resume_step is None else resume_step
    path = workdir / 'metrics.jsonl'
    _drop_after(path, last_step)
    self._lines = path.open('a', encoding='utf-8')
    with _without('torch'):  # where that is installed it would be imported: seconds, for nothing that is used here
      from tensorboardX import SummaryWriter
    # The suffix keeps a life that begins within the same second from overwriting the former's file.
    self._events = SummaryWriter(
      str(workdir / 'tensorboard'),
      purge_step=last_step + 1,
      flush_secs=10,
      filename_suffix=f'.{time.time_ns()}',
    )

  def scalars(self, step: int, values: Mapping[str, object]) -> None:
    """Writes one line of `metrics.jsonl` and one TensorBoard point per value.

    Args:
      step: Training steps taken so far.
      values: Name (`train/loss_224`) to number: a Python, NumPy or JAX scalar.

    Raises:
      ValueError: A value is not a scalar.
    """
    if self._lines is None or self._events is None:
      return
    numbers = {name: _number(name, value) for name, value in values.items()}
    line = {'step': int(step)} | {name: _readable(number) for name, number in numbers.items()}
    self._lines.write(json.dumps(line, allow_nan=False) + '\n')
    self._lines.flush()
    for name, number in numbers.items():
      self._events.add_scalar(name, number, int(step))
    if self._tracker is not None:
      self._tracker.scalars(int(step), numbers)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes an image to TensorBoard.

    Args:
      step: Training steps taken so far.
      name: The image's tag.
      image: `[H, W, C]` with C of 1, 3 or 4: uint8 of 0..255, or floating point of 0..1.

    Raises:
      ValueError: The array has another shape or another type.
    """
    if self._events is None:
      return
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
      raise ValueError(f'image {name!r}: expected [H, W, 1, 3 or 4], got shape {image.shape}')
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
      raise ValueError(f'image {name!r}: expected uint8 or floating point, got {image.dtype}')
    self._events.add_image(name, image, int(step), dataformats='HWC')

  def close(self, whole: bool = True) -> None:
    """Writes what is pending and closes the files; a second call does nothing.

    Args:
      whole: False where an error or a signal ends the run.
    """
    if self._lines is not None and self._events is not None:
      self._lines.close()
      self._events.close()
      self._lines = self._events = None
    if self._tracker is not None:
      self._tracker.close(whole)
      self._tracker = None

  def __enter__(self) -> 'MetricWriter':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    self.close(whole=kind is None)


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
  """Inside, a module that is not imported yet can't be."""
  there = module in sys.modules
  if not there:
    sys.modules[module] = None  # type: ignore[assignment]  # what `import` takes for missing
  try:
    yield
  finally:
    if not there:
      del sys.modules[module]


def _number(name: str, value: object) -> float:
  """The value as a float; an error that names it where it is no scalar."""
  array = np.asarray(value)
  if array.shape != ():
    raise ValueError(f'metric {name!r}: expected a scalar, got shape {array.shape}')
  return float(array)


def _readable(number: float) -> float | str:
  """The number as JSON can hold it."""
  if math.isfinite(number):
    return number
  return 'NaN' if math.isnan(number) else ('Infinity' if number > 0 else '-Infinity')


def _drop_after(path: pathlib.Path, last_step: int) -> None:
  """Keeps the lines of steps up to `last_step`; a last line that was cut short goes, too."""
  if not path.exists():
    return
  kept = []
  for number, line in enumerate(path.read_text('utf-8', 'backslashreplace').splitlines(keepends=True), 1):
    if not line.endswith('\n'):
      break
    try:
      goes = json.loads(line)['step'] > last_step
    except (ValueError, KeyError, TypeError, RecursionError):
      raise ValueError(
        f'{path}, line {number}: expected a JSON object with "step", got {line.strip()[:60]!r}'
      ) from None
    if not goes:
      kept.append(line)
  rewritten = path.with_suffix('.jsonl.tmp')
  rewritten.write_text(''.join(kept), encoding='utf-8')
  rewritten.replace(path)


class Progress:
  """Shows epoch, step, images/s and time left: a bar on a terminal, else a line now and then.

  A context manager. Speed is the mean over the last hundred updates; time spent in `pause` counts
  for neither the speed nor the time left.

  Args:
    total_steps: Steps of the whole run.
    steps_per_epoch: Steps of one epoch.
    batch_size: Images per step over all devices.
    start_step: Steps that were taken before, where a run resumes.
    begin: A step and the epochs that were over then, from where epochs have `steps_per_epoch` steps.
    enabled: False shows nothing; pass `jax.process_index() == 0`.
    every_seconds: Seconds between lines where there is no terminal.
    console: Where to show it; standard error by default.
  """

  def __init__(
    self,
    total_steps: int,
    steps_per_epoch: int,
    batch_size: int,
    *,
    start_step: int = 0,
    begin: tuple[int, float] = (0, 0.0),
    enabled: bool = True,
    every_seconds: float = 10.0,
    console: rich_console.Console | None = None,
  ):
    self._total_steps, self._steps_per_epoch, self._begin = total_steps, steps_per_epoch, begin
    self._batch_size, self._every_seconds, self._enabled = batch_size, every_seconds, enabled
    self._console = console or rich_console.Console(stderr=True)
    self._marks: collections.deque[tuple[float, int]] = collections.deque(maxlen=101)
    self._step, self._note = start_step, ''
    self._next_line = 0.0
    self._bar = rich_progress.Progress(
      rich_progress.BarColumn(bar_width=12),
      rich_progress.TextColumn('{task.description}', markup=False),
      console=self._console,
      refresh_per_second=4,
      disable=not (enabled and self._console.is_terminal),
    )
    self._task = self._bar.add_task(self._text(), total=total_steps, completed=start_step)

  @property
  def images_per_second(self) -> float | None:
    """Images per second over all devices; None before the second update."""
    if len(self._marks) < 2:
      return None
    (start, first), (end, last) = self._marks[0], self._marks[-1]
    return (last - first) * self._batch_size / (end - start) if end > start else None

  def update(self, step: int, note: str | None = None) -> None:
    """Says that `step` steps are done.

    Args:
      step: Training steps taken so far.
      note: Text at the line's end (`loss 1.23`); the former one stays where it is None.
    """
    if not self._enabled:
      return
    self._step = step
    self._note = self._note if note is None else note
    self._marks.append((time.monotonic(), step))
    self._bar.update(self._task, completed=step, description=self._text())
    if self._bar.disable and (time.monotonic() >= self._next_line or step >= self._total_steps):
      self._next_line = time.monotonic() + self._every_seconds
      self._console.print(self._text(), highlight=False, markup=False, soft_wrap=True)

  @contextlib.contextmanager
  def pause(self, what: str) -> Iterator[None]:
    """Work that is no training: shown by its name, left out of the speed and the time left.

    Args:
      what: Its name (`evaluating`).

    Yields:
      Nothing.
    """
    start = time.monotonic()
    note, self._note = self._note, what
    self._bar.update(self._task, description=self._text())
    try:
      yield
    finally:
      lost = time.monotonic() - start
      self._marks = collections.deque(((mark + lost, step) for mark, step in self._marks), maxlen=self._marks.maxlen)
      self._note = note
      self._bar.update(self._task, description=self._text())

  def _epochs(self, step: int) -> float:
    """The epochs that are over after a step."""
    begin, epochs = self._begin
    return round(epochs + (step - begin) / self._steps_per_epoch, 9)

  def _text(self) -> str:
    """The line without the bar."""
    epochs = max(1, math.ceil(self._epochs(self._total_steps)))
    epoch = min(int(self._epochs(self._step)) + 1, epochs)
    parts = [f'epoch {epoch}/{epochs}', f'step {self._step}/{self._total_steps}']
    if rate := self.images_per_second:
      seconds = round((self._total_steps - self._step) * self._batch_size / rate)
      parts.append(f'{rate:,.0f} images/s' if rate >= 10 else f'{rate:.2g} images/s')
      parts.append(f'{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left')
    return '  '.join([*parts, self._note] if self._note else parts)

  def __enter__(self) -> 'Progress':
    self._bar.start()
    return self

  def __exit__(self, *_) -> None:
    self._bar.stop()
