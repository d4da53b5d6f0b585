"""Networks from elsewhere, as a Network of ours, and back; see `importing.read` and `torch.state_dict`."""

from resjax.interop.importing import ARCHITECTURES, Imported, load, read, save

__all__ = ['ARCHITECTURES', 'Imported', 'load', 'read', 'save']
