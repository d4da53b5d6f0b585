"""Stands for Google Cloud Storage: a local folder behind gs://, for Python through fsspec, for array_record by HTTP."""

import contextlib
import re
import threading
import urllib.parse
from http import server

from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry


@contextlib.contextmanager
def bucket(root, monkeypatch):
  """`gs://photos/...` are the files of the folder `root`, until the end; yields the names asked for by HTTP."""
  asked = []

  class Storage(LocalFileSystem):
    protocol, cachable = ('gcs', 'gs'), False

    def __init__(self, **_):
      super().__init__()

    @classmethod
    def _strip_protocol(cls, path):
      path = str(path)
      return str(root / path.removeprefix('gs://photos').strip('/')) if path.startswith('gs://photos') else path

  class Handler(server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
      """A part of an object, as the JSON API gives it: /storage/v1/b/BUCKET/o/NAME?alt=media."""
      path = urllib.parse.urlparse(self.path).path
      name = urllib.parse.unquote(path.rpartition('/o/')[2] or path)
      asked.append(name)
      whole = (root / name).read_bytes()
      first, last = 0, len(whole) - 1
      if span := re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', '')):
        if span[1]:
          first, last = int(span[1]), min(last, int(span[2] or last))
        else:
          first = max(0, len(whole) - int(span[2]))
      data = whole[first : last + 1]
      self.send_response(206 if span else 200)
      self.send_header('Content-Range', f'bytes {first}-{last}/{len(whole)}')
      self.send_header('Content-Length', str(len(data)))
      self.end_headers()
      with contextlib.suppress(ConnectionError):
        self.wfile.write(data)

    def log_message(self, *_):
      pass

  monkeypatch.setitem(_registry, 'gcs', Storage)
  backend.fsspec_backend._get_filesystem.cache_clear()
  with server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
    monkeypatch.setenv('CLOUD_STORAGE_EMULATOR_ENDPOINT', f'http://127.0.0.1:{http.server_port}')
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield asked
    http.shutdown()
  backend.fsspec_backend._get_filesystem.cache_clear()
