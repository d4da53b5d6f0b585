"""Runs that are cut short."""

from resjax.data import loader


def interrupted_after(steps, monkeypatch):
  """Makes the data fail after so many batches of one life."""
  whole = loader.train_batches

  def batches(*arguments, **options):
    iterator = whole(*arguments, **options)
    try:
      for _ in range(steps):
        yield next(iterator)
    finally:
      iterator.close()
    raise KeyboardInterrupt

  monkeypatch.setattr(loader, 'train_batches', batches)
