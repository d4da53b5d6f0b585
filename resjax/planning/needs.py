"""What a training step will need on a TPU pod: compiled for the pod's topology, on a machine without a TPU.

The step is the one that training runs. Memory and collectives are read from what XLA's TPU compiler makes of it, the
compiler that comes with the package libtpu; nothing is run, and no data are needed.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resjax import drnet, macs, models
from resjax.planning import compiler
from resjax.resolution import at_widths
from resjax.training import run, two_pass
from resjax.training.devices import Devices, placed

# A schedule needs the length of an epoch, a compiled step does not change with it: ImageNet's.
TRAINING_IMAGES = 1_281_167


@dataclasses.dataclass(frozen=True)
class ProgramNeed:
  """A compiled program's memory on each chip, bytes, and what it sends.

  Attributes:
    name: `train_step`, or the part of it.
    arguments: What it is given.
    outputs: What it returns beside what takes the place of an argument.
    temporaries: What it needs in between.
    code: The program itself.
    held: What else is in memory meanwhile: arguments of the step's other programs.
    collectives: Bytes that each kind of collective operation reduces or moves on a chip.
  """

  name: str
  arguments: int
  outputs: int
  temporaries: int
  code: int
  held: int
  collectives: dict[str, int]

  @property
  def memory(self) -> int:
    """All of it, bytes."""
    return self.arguments + self.outputs + self.temporaries + self.code + self.held


@dataclasses.dataclass(frozen=True)
class Need:
  """What a step needs with one batch.

  Attributes:
    per_chip: Images on each chip.
    state: Of the training state on each chip, bytes.
    batch: Of the batch on each chip, bytes.
    memory: Of the dearest program on each chip, bytes; where it does not fit, the least, as far as the compiler says.
    fits: Whether there is room for it.
    programs: In their order; empty where the compiler refuses one.
  """

  per_chip: int
  state: int
  batch: int
  memory: int
  fits: bool
  programs: tuple[ProgramNeed, ...]


def need(config: ConfigDict, devices: list[jax.Device], per_chip: int, memory: float = math.inf) -> Need:
  """Compiles the training step for some devices and returns what it needs.

  Args:
    config: As in configs/default.py; `batch_size` is not read.
    devices: To compile for.
    per_chip: Images on each device.
    memory: Of each device, bytes; a compiler looks at one program alone, not at what is held beside it.

  Raises:
    ValueError: `config.parallel` is 'pmap', which has no way to name devices that are not there.
  """
  if config.parallel != 'shard_map':
    raise ValueError(f"config.parallel: got {config.parallel!r}, expected 'shard_map' for a plan")
  if config.teacher.checkpoint:
    got = config.teacher.checkpoint
    raise ValueError(f"config.teacher.checkpoint: got {got!r}, expected '' for a plan (a teacher is not counted)")
  mesh = Devices(config.parallel, devices)
  steps = max(1, TRAINING_IMAGES // (per_chip * len(devices)))
  _, fresh, train_step = run.make_training(config, mesh, steps, max(1, round(config.epochs * steps)))
  state = mesh.shapes(fresh, jax.random.key(0))
  batch = placed(batch_of(config, per_chip * len(devices)), mesh.split)
  sizes = _bytes(state), _bytes(batch)
  try:
    programs = _programs(train_step, state, batch)
  except jax.errors.JaxRuntimeError as error:
    if (wanted := compiler.refused(str(error))) is None:
      raise
    return Need(per_chip, *sizes, wanted, False, ())
  most = max(program.memory for program in programs)
  return Need(per_chip, *sizes, most, most <= memory, programs)


def batch_of(config: ConfigDict, size: int) -> dict[str, Any]:
  """Returns the shapes of the loader's batch of `size` images."""
  sizes = tuple(config.resolutions)[: None if config.data.pyramid == 'host' else 1]
  images = tuple(jax.ShapeDtypeStruct((size, r, r, 3), jnp.uint8) for r in sizes)
  number = jax.ShapeDtypeStruct((size,), jnp.int32)
  return {'images': images, 'label': number, 'index': number}


def _programs(train_step: Any, state: Any, batch: Any) -> tuple[ProgramNeed, ...]:
  """The programs of a step, compiled for these shapes, in the order in which the step calls them."""
  programs, base = [], _bytes((state, batch))

  def compiling(name: str, program: Any, known: int) -> Callable[..., Any]:
    """A stand-in for a program, which compiles it and returns shapes; `known` arguments are of state and batch."""

    def call(*args: Any) -> Any:
      lowered = program.lower(*args)
      compiled = lowered.compile()
      programs.append(_described(name, compiled, base + _bytes(args[known:])))
      return jax.tree.map(placed, lowered.out_info, compiled.output_shardings)

    return call

  given, step = functools.partial(_given, train_step), train_step
  if isinstance(train_step, two_pass.TwoPass):
    step = dataclasses.replace(
      train_step,
      look=tuple(compiling(f'look {place}', p, 4) for place, p in enumerate(train_step.look, 1)),
      learn=tuple(compiling(f'learn {place}', p, 4) for place, p in enumerate(train_step.learn)),
      update=compiling('update', train_step.update, 3),
      given=given,
    )
  else:
    step = dataclasses.replace(train_step, program=compiling('train_step', train_step.program, 3), given=given)
  step(state, batch)
  return tuple(programs)


def _given(train_step: Any, state: Any) -> Any:
  """What a step is given beside its state and batch, as shapes."""
  return placed(jax.eval_shape(train_step.given, state), state.step.sharding)


def _described(name: str, program: Any, live: int) -> ProgramNeed:
  """What a compiled program needs; `live` bytes are in memory when it starts, as arguments or beside them."""
  memory = program.memory_analysis()
  return ProgramNeed(
    name=name,
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
    held=max(0, live - memory.argument_size_in_bytes),
    collectives=compiler.collectives(program.as_text()),
  )


def multiply_adds(config: ConfigDict, per_chip: int) -> tuple[int, int]:
  """Returns the multiply-adds of a batch on its way to the loss, resizing included, and of a training step with it.

  The way back is taken as twice the way there, but for what is frozen, which has none. A step in two passes runs the
  smaller resolutions once more, of DRNet the predictor once more for each resolution. By the sandwich rule it is the
  mean over what is drawn.

  Args:
    config: As in configs/default.py.
    per_chip: Images in the batch.
  """
  method, model = run.METHODS[config.method], models.from_config(config)
  variables = jax.eval_shape(lambda key: method.init(model, config, key), jax.random.key(0))
  batch = batch_of(config, per_chip) | {'step': jax.ShapeDtypeStruct((), jnp.int32)}
  key = jax.eval_shape(lambda: jax.random.key(0))
  whole = config.copy_and_resolve_references()
  whole.sandwich, saved = 0, per_chip * _passed_over(config, model)
  loss_fn = method.make_loss_fn(model, whole)
  forward = macs.count(loss_fn, variables['params'], variables['batch_stats'], batch, key) - saved
  back, again = 2 * forward, 0
  if method.rates(config).get('network') == 0:  # the predictor alone learns
    back = 2 * per_chip * drnet.predictor_of(config).macs
  if config.memory == 'two_pass' and config.method == 'drnet':
    again = per_chip * len(at_widths(config)) * drnet.predictor_of(config).macs
  elif config.memory == 'two_pass' and config.distillation != 'none':
    again = per_chip * sum(macs.of_model(model, resolution) for resolution in at_widths(config)[1:]) - saved
  return forward, forward + back + again


def _passed_over(config: ConfigDict, model: Any) -> int:
  """The multiply-adds of an image that the sandwich rule leaves out, in the mean over what is drawn."""
  between = at_widths(config)[1:-1]
  if not config.sandwich:
    return 0
  return round((1 - config.sandwich / len(between)) * sum(macs.of_model(model, each) for each in between))


def largest(measure: Callable[[int], Need], first: Need, memory: int) -> tuple[int, int, list[Need]]:
  """Returns the largest batch of a chip that fits, the next one, which does not, and all that was measured.

  Batches of the search are 1, 2, 3, 4, 6, 8, 12, ... : powers of two and the middles between them. A straight line
  through the state's memory and the last measurement says which to try next.

  Args:
    measure: What the step needs with some images on a chip.
    first: What it needs with some.
    memory: Of a chip, bytes.

  Returns:
    0 images where not even one fits.
  """
  ladder = sorted(size for k in range(24) for size in {2**k, 3 * 2**k // 2} - {0})
  measured = [first]
  while True:
    fits = max((n.per_chip for n in measured if n.fits), default=0)
    refused = min((n.per_chip for n in measured if not n.fits), default=ladder[-1])
    room = ladder[bisect.bisect_right(ladder, fits) : bisect.bisect_left(ladder, refused)]
    if not room:
      return fits, refused, measured
    last = measured[-1]
    wanted = (memory - last.state) / max(1, last.memory - last.state) * last.per_chip
    place = bisect.bisect_right(room, wanted) - 1
    measured.append(measure(room[min(max(place, 0), len(room) - 1)]))


def _bytes(tree: Any) -> int:
  """The bytes of a tree of placed arrays on one device."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
