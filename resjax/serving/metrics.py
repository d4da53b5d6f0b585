"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
  """The counts of one server.

  Attributes:
    requests: By status of HTTP.
    images: By the resolution that they ran at.
    unreadable: Images that were none.
    macs: Multiply-adds.
    seconds: From a request's first byte to its answer, of those that were answered with 200.
    under_way: Images.
    step: Of the dial, by its name: 1 where it stands.
  """

  def __init__(self) -> None:
    """Starts at 0."""
    self._registry = CollectorRegistry()
    self.requests = Counter('resjax_requests', 'requests by status', ['status'], registry=self._registry)
    self.images = Counter('resjax_images', 'images by resolution', ['resolution'], registry=self._registry)
    self.unreadable = Counter('resjax_unreadable_images', 'uploads that were no image', registry=self._registry)
    self.macs = Counter('resjax_multiply_adds', 'of all that was run', registry=self._registry)
    self.seconds = Histogram('resjax_request_seconds', 'of answers', buckets=_SECONDS, registry=self._registry)
    self.under_way = Gauge('resjax_images_under_way', 'images not yet answered', registry=self._registry)
    self.step = Gauge('resjax_dial', '1 at the step where the dial stands', ['step'], registry=self._registry)
    self._stands = ''

  def dialled(self, step: str) -> None:
    """Takes note of where the dial stands."""
    if step != self._stands:
      if self._stands:
        self.step.labels(self._stands).set(0)
      self.step.labels(step).set(1)
      self._stands = step

  def text(self) -> bytes:
    """All of it, as Prometheus reads it."""
    return generate_latest(self._registry)
