"""What is read from the compiler's words: the bytes of collectives, and what there is no room for."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from resjax.planning import compiler

GIB = 2**30


def test_a_compiled_program_tells_what_it_reduces():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))

  def body(x, y):
    return jax.lax.pmean(x, 'data'), jax.lax.all_gather(y, 'data'), jax.lax.psum(y.astype(jnp.int8), 'data')

  mapped = jax.shard_map(body, mesh=mesh, in_specs=P('data'), out_specs=(P(), P('data'), P()))
  shapes = [jax.ShapeDtypeStruct((8, *s), jnp.float32) for s in [(3, 5), (7,)]]
  found = compiler.collectives(jax.jit(mapped).lower(*shapes).compile().as_text())
  assert found['all-gather'] == 8 * 7 * 4
  assert found['all-reduce'] in (3 * 5 * 4 + 7, 3 * 5 * 4 + 7 * 4)  # the CPU adds int8 as int8 or as int32


@pytest.mark.parametrize(
  ('line', 'expected'),
  [
    ('  %r = f32[3,64]{1,0:T(8,128)} all-reduce(%a), channel_id=1, to_apply=%add', {'all-reduce': 768}),
    (
      '  %r = (f32[1]{0:T(128)}, bf16[64]{0:T(128)S(1)}, /*index=2*/pred[5]{0}) all-reduce-start(%a, %b, %c)',
      {'all-reduce': 4 + 128 + 5},
    ),
    ('  %g = (f32[2]{0}, f32[16]{0}) all-gather-start(f32[2]{0} %a), dimensions={0}', {'all-gather': 64}),
    (
      '  %g = ((f32[2]{0}, f32[3,8]{1,0:T(8,128)}), (f32[16]{0}, /*index=1*/f32[24,8]{1,0:T(8,128)})) '
      'all-gather-start(%a, %b), dimensions={0}',
      {'all-gather': 4 * (16 + 24 * 8)},
    ),
    ('  %d = f32[16]{0} all-gather-done(%g)', {}),
    ('  %p = (u32[4]{0}, u32[4]{0}, u32[], u32[]) collective-permute-start(%a)', {'collective-permute': 16}),
    ('  %s = f8e4m3fn[10]{0} reduce-scatter(%a), dimensions={0}', {'reduce-scatter': 10}),
    ('  %t = f32[1]{0} get-tuple-element(%all-reduce.213), index=0, metadata={op_name="x/all-reduce"}', {}),
    ('  %u = f32[] all-reduce(%a)', {'all-reduce': 4}),
  ],
)
def test_bytes_of_collectives(line, expected):
  assert compiler.collectives(line) == expected


@pytest.mark.parametrize(
  ('message', 'expected'),
  [
    (  # as libtpu 0.0.42 says it
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (32.00G) exceeds '
      'available HBM (15.75G).',
      32 * GIB,
    ),
    ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. Exceeded', 17.5 * GIB),
    ('RESOURCE_EXHAUSTED: Used 1.5K of 1.0K vmem', 1.5 * 2**10),
    ('RESOURCE_EXHAUSTED: Used 130.25M of 128.00M vmem', 130.25 * 2**20),
    ('RESOURCE_EXHAUSTED: Used 1.25T of 15.75G hbm', 1.25 * 2**40),
    ('RESOURCE_EXHAUSTED: too much', 0),
    ('INVALID_ARGUMENT: Used 17.50G of 15.75G hbm', None),
  ],
)
def test_what_does_not_fit(message, expected):
  assert compiler.refused(message) == expected
