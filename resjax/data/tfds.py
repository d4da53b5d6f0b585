"""Prepared TFDS data sets by name, in array_record or TFRecord files, without TensorFlow."""

import glob
import pathlib
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from resjax.data.decode import BadImage
from resjax.data.tfrecord import Part, TFRecords
from resjax.paths import is_remote, literal, path_of
from resjax.telling import utf8

__all__ = ['TfdsSource']


class TfdsSource:
  """A split of a prepared data set with an image and a class.

  Attributes:
    num_classes: Number of classes.
    class_names: Their names.
    needed: None.
  """

  needed = None

  def __init__(self, name: str, data_dir: str, split: str):
    """Opens a split.

    Args:
      name: The data set's name as TFDS writes it, optionally with config and version.
      data_dir: TFDS's folder of data sets (empty: its default), or the folder of this prepared
        data set, which holds dataset_info.json; local or gs://BUCKET/FOLDER.
      split: 'train', 'validation', 'train[:10%]', ...

    Raises:
      FileNotFoundError: The data set is not prepared; the message says how to.
      ValueError: The name, the split or the kind of data set does not fit.
    """
    builder = _builder(name, data_dir)
    self.name, self.split = builder.info.full_name, split
    self._image, self._label, self._features = _features(builder)
    label = builder.info.features[self._label]
    self.num_classes = label.num_classes
    self.class_names = tuple(label.names)
    parts = _parts(builder, split)
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
      if is_remote(builder.data_path):
        raise ValueError(
          f'config.data.dir: {builder.data_path} holds TFRecord files, expected array_record files in a bucket '
          '(or a local copy: gcloud storage cp -r)'
        )
      self._records = TFRecords(parts)
    else:
      raw = tfds.decode.DeserializeMethod.RAW_BYTES
      self._records = builder.as_data_source(split, deserialize_method=raw)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    try:
      record = self._features.deserialize_example_np(
        self._records[index], decoders={self._image: tfds.decode.SkipDecoding()}
      )
      return {'image': record[self._image], 'label': int(record[self._label])}
    except OSError:
      raise
    except Exception as error:  # whatever a parser may raise over broken bytes
      raise BadImage(f'the record is damaged ({str(error).splitlines()[0]})') from error

  def name_of(self, index: int) -> str:
    """Returns the data set, the split and the number of a record, and its place in a file."""
    where = f' ({self._records.name_of(index)})' if isinstance(self._records, TFRecords) else ''
    return f'{self.name} {self.split} {index}{where}'

  def entries(self) -> tuple[str]:
    """Returns which data set it is, of which version, which split, and how many records."""
    return (f'{self.name} {self.split}, {len(self)} images',)


def _builder(name: str, data_dir: str) -> Any:
  """The builder of a data set that is prepared."""
  folder = path_of(data_dir, 'config.data.dir')
  if not str(folder).isascii() and utf8(str(folder)) != str(folder):
    raise ValueError(f'config.data.dir: got {data_dir!r}, expected a path in UTF-8: TFDS reads no other')
  if data_dir and glob.has_magic(str(folder)):
    folder = _only_one(folder, name)
  if data_dir and (folder / 'dataset_info.json').is_file():
    builder = tfds.builder_from_directory(folder)
    if builder.name != name.split(':')[0].split('/')[0]:
      raise ValueError(f'config.data.name: {name}, but {folder} holds {builder.name}')
    return builder
  try:
    builder = tfds.builder(name, data_dir=folder if data_dir else None)
  except tfds.core.DatasetNotFoundError:
    where = folder if data_dir else "TFDS's folder"
    raise ValueError(
      f'config.data.name: {name!r}, expected a data set that TFDS knows or that stands prepared in {where}'
    ) from None
  except (AssertionError, ValueError) as error:
    raise ValueError(f'config.data.name: {name!r}: {" ".join(str(error).split())}') from None
  if not builder.is_prepared():
    raise FileNotFoundError(_how_to_prepare(builder))
  return builder


def _only_one(folder: epath.Path, name: str) -> epath.Path:
  """The prepared data set below a folder whose name TFDS, which looks for it there, would read as a pattern."""
  below = pathlib.Path(folder, *name.replace(':', '/').split('/'))
  found = [folder / 'dataset_info.json'] if (folder / 'dataset_info.json').is_file() else []
  found = found or sorted(below.glob('**/dataset_info.json'))
  if len(found) != 1:
    raise FileNotFoundError(
      f'config.data.dir: got {folder}, whose name TFDS reads as a pattern, and {len(found)} prepared {name} in it; '
      'expected one, or the folder that holds its dataset_info.json'
    )
  return literal(found[0].parent)


def _how_to_prepare(builder: Any) -> str:
  """What to do about a data set that is not there."""
  root = builder.data_path
  for _ in builder.info.full_name.split('/'):
    root = root.parent
  manual = ''
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    text = ' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    manual = f'  mkdir -p {root}/downloads/manual   # and put the archives there by hand. TFDS says: {text}\n'
  return (
    f'{builder.info.full_name} is not prepared in {root} (config.data.name, config.data.dir).\n'
    f'Prepare it once, in an environment of its own with TensorFlow (resjax itself needs none):\n'
    f'{manual}'
    f'  python -m venv tfds-env && tfds-env/bin/pip install tensorflow tensorflow-datasets array_record\n'
    f'  tfds-env/bin/tfds build {builder.info.full_name.rsplit("/", 1)[0]} --data_dir={root}'
    f' --file_format=array_record\n'
    f'Or name a folder where it stands prepared, in array_record or TFRecord files:\n'
    f'  --config.data.dir=DIR\n'
    f'Or train on image files in DIR/train/<class>/ and DIR/val/<class>/:\n'
    f'  --config.data.source=folder --config.data.dir=DIR'
  )


def _features(builder: Any) -> tuple[str, str, Any]:
  """The names of the image and the label, and a reader of just these two."""
  features = dict(builder.info.features.items())
  keys = builder.info.supervised_keys
  image, label = keys if keys and len(keys) == 2 and all(isinstance(k, str) for k in keys) else ('image', 'label')
  for key, kind in ((image, tfds.features.Image), (label, tfds.features.ClassLabel)):
    if not isinstance(features.get(key), kind):
      raise ValueError(
        f'config.data.name: {builder.info.full_name} has the features {", ".join(features)}, '
        f'expected an image {image!r} and a class {label!r}'
      )
  return image, label, tfds.features.FeaturesDict({image: features[image], label: features[label]})


def _parts(builder: Any, split: str) -> list[Part]:
  """The files of a split; all are there."""
  try:
    files = builder.info.splits[split].file_instructions
  except (KeyError, ValueError) as error:
    known = ', '.join(builder.info.splits)
    raise ValueError(f'{builder.info.full_name}: split {split!r}, expected one of {known}') from error
  folders = {epath.Path(file.filename).parent for file in files}
  there = {str(path) for folder in folders for path in folder.iterdir()}  # in a bucket one request, not one a file
  for file in files:
    if str(file.filename) not in there:
      raise FileNotFoundError(f'{file.filename}: missing, a part of {builder.info.full_name} {split}')
  return [Part(str(f.filename), f.skip, f.take, f.examples_in_shard) for f in files]
