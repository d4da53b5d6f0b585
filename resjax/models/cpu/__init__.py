"""Layers that XLA's CPU compiler is slow at, written otherwise there, with the same numbers to rounding.

Which way runs is decided where a program is compiled (`jax.lax.platform_dependent`), so one jaxpr is right on every
platform; elsewhere than on a CPU these are XLA's own.
"""

from resjax.models.cpu.conv import conv_general_dilated
from resjax.models.cpu.pool import max_pool

__all__ = ['conv_general_dilated', 'max_pool']
