"""The classifying process: batches in, replies out, the dial turned for each."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from resjax import compiling
from resjax.inference import Classifier
from resjax.inference.predictions import Asked, Prediction
from resjax.resolution import Branch, name, parse, plain
from resjax.routing.fixed import Fixed
from resjax.serving import slo
from resjax.serving.messages import Cut, Reply
from resjax.serving.settings import Depth, Settings, describe
from resjax.serving.steps import Step, ladder
from resjax.telling import utf8


class Classifying:
  """Runs batches as the settings say.

  Attributes:
    steps: Of the dial; none where it stays.
    dial: Where it stands.
  """

  def __init__(self, classifier: Classifier, settings: Settings, depth: Callable[[], int] = lambda: 0):
    """Compiles what is needed.

    Args:
      classifier: Of the network.
      settings: How it is served.
      depth: Says how many images are under way.

    Raises:
      ValueError: The settings do not fit the network; as of `Classifier.stream` and `ladder`.
      FileNotFoundError: A budget needs a calibration.
    """
    self._classifier, self._settings, self._depth = classifier, settings, depth
    self.size = classifier.resolutions[0] if settings.resolution is None else parse(settings.resolution)
    self.steps: list[Step] = []
    self.dial = slo.Dial()
    if settings.p95 is not None:
      lowest = None if settings.min_resolution is None else parse(settings.min_resolution)
      self.steps = ladder(classifier, settings.router, lowest)
    self._seconds = [step.seconds for step in self.steps]
    self._largest: Fixed | None = None  # what runs where nothing is asked and there is no predictor
    if settings.resolution is None:
      costs = tuple(map(float, classifier.engines.macs))  # compiles all that a budget of a request may take
      self._largest = Fixed(costs) if classifier.network.predictor is None else None
    blank = classifier.crop(np.zeros((8, 8, 3), np.uint8), self.size)[None]
    for router in [step.router for step in self.steps] or [None]:  # what is wrong, or slow the first time, shows now
      classifier.predict_crops(blank, **self._asked(None, router))

  @classmethod
  def of_folder(cls, folder: pathlib.Path) -> Self:
    """Returns what a server's folder asks for, and says there what it serves; where it can't, why, and SystemExit."""
    settings = Settings.read(folder)
    compiling.keep_compiled_programs()
    try:
      classifier = Classifier.load(
        settings.workdir,
        step=settings.step,
        max_pixels=settings.max_pixels,
        max_batch=settings.max_batch,
        dtype=settings.dtype,
        runtime=settings.runtime,
      )
      depth = Depth(folder)
      made = cls(classifier, settings, lambda: depth.images)
    except (ValueError, OSError) as error:
      describe({'error': str(error)})
      raise SystemExit(1) from None
    describe(made.described())
    return made

  def described(self) -> dict[str, Any]:
    """What the other processes need to know, as JSON values."""
    classifier = self._classifier
    return {
      'preprocessing': dataclasses.asdict(classifier.network.preprocessing),
      'size': self.size.size if isinstance(self.size, Branch) else self.size,  # of the crop
      'resolutions': [*map(plain, classifier.resolutions)],
      'classes': len(classifier.class_names),
      'steps': [(step.name, step.seconds) for step in self.steps],
      'notes': classifier.notes,
    }

  def replies(self, cuts: Sequence[Cut]) -> list[Reply]:
    """Returns a reply for each image; those of one budget are run together, and without a dial all have the same."""
    begin, step = time.monotonic(), None
    if self.steps:
      queue = slo.Queue(begin, begin - min(cut.arrived for cut in cuts), len(cuts), max(self._depth(), len(cuts)))
      self.dial = slo.turned(self.dial, queue, self._seconds, self._settings.p95 or 0)
      step = self.steps[self.dial.step]
    router = None if step is None else step.router
    found: list[Reply] = [Reply()] * len(cuts)
    for budget in dict.fromkeys(cut.budget for cut in cuts):
      rows = [row for row, cut in enumerate(cuts) if cut.budget == budget]
      for row, reply in zip(rows, self._run([cuts[row].crop for row in rows], budget, router), strict=True):
        found[row] = reply
    if step is not None:
      self.dial = slo.measured(self.dial, len(cuts), time.monotonic() - begin, step.seconds)
      for reply in found:
        reply.dial, reply.seconds = step.name, self._seconds[-1] * self.dial.pace
    return found

  def _run(self, crops: list[np.ndarray], budget: str | None, router: Any) -> list[Reply]:
    """Replies to images of one budget; where it can't be met, they say so."""
    try:
      found = self._classifier.predict_crops(np.stack(crops), **self._asked(budget, router))
    except (ValueError, FileNotFoundError) as error:
      if budget is None:
        raise
      return [Reply(error=str(error), status=400) for _ in crops]
    return [Reply(self._row(p)) if p.error is None else Reply(error=p.error, status=500) for p in found]

  def _asked(self, budget: str | None, router: Any) -> Asked:
    """What is asked of the classifier for a budget of the images' own, or for the router of a step of the dial."""
    settings = self._settings
    asked: Asked = {'top_k': settings.top_k}
    if router is not None:
      return asked | Asked(router=router)
    if settings.resolution is not None:
      return asked | Asked(resolution=self.size)
    budget = budget or settings.budget
    if budget is None and settings.router is None and self._largest is not None:
      return asked | Asked(router=self._largest)
    return asked | Asked(budget=budget, router=settings.router)

  def _row(self, prediction: Prediction) -> dict[str, Any]:
    """As `resjax predict --format=jsonl` writes it, the image's name and the error left out."""
    row: dict[str, Any] = {'class_index': prediction.class_index, 'label': utf8(prediction.label or '')}
    row |= {'probability': prediction.probability}
    row |= {'resolution': name(prediction.resolution or self.size), 'macs': prediction.macs}
    top = [guess._replace(label=utf8(guess.label))._asdict() for guess in prediction.top]
    return row | ({'top': top} if self._settings.top_k > 1 else {})
