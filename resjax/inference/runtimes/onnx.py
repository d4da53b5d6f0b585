"""ONNX Runtime as a runtime, for CPUs: programs become graphs of ONNX, one session for each resolution."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnxruntime

from resjax.exporting import onnx
from resjax.exporting.bundle import OnnxFile
from resjax.exporting.onnx.graph import INPUT, digest, elsewhere
from resjax.inference.programs import Program
from resjax.inference.runtime import Identity, processor, processors
from resjax.telling import utf8


class OnnxRuntime:
  """Programs of one network, run by ONNX Runtime; see `Runtime` for its attributes.

  A session takes any number of images, so padding costs nothing here. Its threads sleep while they wait: those that
  spin, as ONNX Runtime has them by default, take the processors from the next session's, from decoding, and from XLA.
  """

  multiple = 1

  def __init__(
    self, programs: Sequence[Program], *, threads: int | None = None, share: bool = False, spin: bool = False
  ):
    """Makes nothing yet.

    Args:
      programs: From the same crops; the largest resolution first.
      threads: Of each session; None: one for each processor.
      share: The sessions keep their weights once, as they came, and fold and reorder nothing: slower. False: each has
        its own.
      spin: Threads that wait stay awake, see the class.

    Raises:
      ValueError: There are no programs, they take other crops, or compute in bfloat16.
    """
    if not programs or len({(program.shape, program.num_classes) for program in programs}) > 1:
      shapes = [program.shape for program in programs]
      raise ValueError(f'programs: got {len(programs)} of crops {shapes}, expected one or more, of the same crops')
    in_files = all(isinstance(program.forward, OnnxFile) for program in programs)
    known = ('float32', 'int8') if in_files else ('float32',)
    if wrong := [program.dtype for program in programs if program.dtype not in known]:
      raise ValueError(f'dtype: got {wrong[0]}, expected float32 with ONNX Runtime on a CPU')
    self.resolutions = tuple(program.resolution for program in programs)
    self.shape, self.num_classes = programs[0].shape, programs[0].num_classes
    self._programs = tuple(programs)
    self._threads = threads or processors()
    self._share, self._spin = share, spin
    self._sessions: list[onnxruntime.InferenceSession] = []
    self._values: dict[Any, onnxruntime.OrtValue] = {}

  @property
  def identity(self) -> Identity:
    """What a program's time depends on."""
    shared, wait = ', shared' if self._share else '', 'spin' if self._spin else 'sleep'
    return Identity(
      runtime=f'onnxruntime {onnxruntime.__version__}, {self._threads} threads that {wait}{shared}',
      machine=processor(),
      processors=processors(),
      device='cpu',
      devices=1,
      programs=self._programs[0].description,
      dtype=self._programs[0].dtype,
      crop=self.shape,
    )

  @property
  def compiled(self) -> int:
    """How many sessions there are."""
    return len(self._sessions)

  def compile(self, buckets: Sequence[int]) -> None:
    """Makes a session for each resolution, which takes every bucket.

    Raises:
      ValueError: A program has an operation that ONNX's writer, or ONNX Runtime, does not know.
    """
    if not self._sessions:
      self._sessions = [self._session(program) for program in self._programs]

  def put(self, images: np.ndarray | jax.Array) -> np.ndarray:
    """Returns the crops on the host."""
    return np.asarray(images)

  def dispatch(self, batch: np.ndarray, place: int, bucket: int, rows: np.ndarray) -> np.ndarray:
    """Runs one program, and waits for it; rows that pad are not run."""
    (logits,) = self._sessions[place].run(None, {INPUT: batch[rows]})
    return np.resize(logits, (bucket, self.num_classes))

  def _session(self, program: Program) -> onnxruntime.InferenceSession:
    """The session of one program."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = self._threads, 3
    options.add_session_config_entry('session.intra_op.allow_spinning', str(int(self._spin)))
    if isinstance(program.forward, OnnxFile):
      path = program.forward.path
      graph: Any = str(path) if utf8(str(path)) == str(path) else path.read_bytes()  # it takes no other name
    else:
      shared = _Shared(self._values, options) if self._share else None
      graph = onnx.of_function(program.forward, program.variables, program.shape, weights=shared).SerializeToString()
    if self._share:
      options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
      options.add_session_config_entry('session.disable_prepacking', '1')
    try:
      return onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # of classes that it does not name in public
      reason = str(error).splitlines()[0]
      raise ValueError(f'runtime: got onnx, which does not run {program.description} ({reason})') from error


class _Shared:
  """Weights in memory that sessions take as they are, in place of `onnx_graph.Weights`."""

  def __init__(self, values: dict[Any, onnxruntime.OrtValue], options: onnxruntime.SessionOptions):
    """Takes what keeps the weights, by digest, and the options of a session that is to be made."""
    self._values, self._options = values, options

  def refer(self, proto: Any, array: np.ndarray) -> None:
    """Gives a constant to the session; its description says that its values are elsewhere."""
    key = digest(array)
    if key not in self._values:
      self._values[key] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    self._options.add_external_initializers([proto.name], [self._values[key]])
    elsewhere(proto, 'memory', 0, array.nbytes)
