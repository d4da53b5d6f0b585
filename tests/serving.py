"""A server that is started over a tiny network, and what asks it: for the tests of serving."""

import http.client
import io
import json
import re
import socket
import subprocess
import sys
import time

import networks
import numpy as np
from PIL import Image

from resjax.exporting import bundle
from resjax.inference import Classifier


def encoded(image, kind='PNG'):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, kind)
  return buffer.getvalue()


def photographs():
  rng = np.random.default_rng(0)
  coarse = [rng.integers(0, 256, (3, 4, 3), np.uint8) for _ in range(24)]
  return [
    encoded(np.asarray(Image.fromarray(image).resize((24 + i, 30), Image.Resampling.BICUBIC)))
    for i, image in enumerate(coarse)
  ]


def bundled(folder, images):
  """A bundle of a tiny network, calibrated."""
  bundle.write(networks.tiny(), folder)
  Classifier.load(folder, max_batch=4).calibrate(images)
  return folder


class Served:
  """A server that was started."""

  def __init__(self, *arguments):
    command = [sys.executable, '-m', 'resjax', 'serve', '--port=0', *arguments]
    self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    self.lines = []
    for line in self.process.stderr:
      self.lines.append(line)
      if ready := re.match(r'ready on http://127\.0\.0\.1:(\d+)', line):
        self.port = int(ready[1])
        return
    raise AssertionError(''.join(self.lines))

  def ask(self, method='POST', path='/predict', body=b'', kind=None, **options):
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
    connection.request(method, path, body, {'Content-Type': kind} if kind else {}, **options)
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, json.loads(content) if content.startswith('{') else content

  def slow(self, image):
    """Sends all of an image but its last byte."""
    opened = socket.create_connection(('127.0.0.1', self.port), timeout=20)
    opened.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % len(image) + image[:-1])
    return opened

  def end(self):
    rest = self.process.communicate(timeout=60)[1]
    return rest, self.process.returncode


def status_of(opened):
  response = http.client.HTTPResponse(opened)
  response.begin()
  return response.status


def alive(session):
  """The processes of a session that have not ended; the last of them get a moment to be gone."""
  for _ in range(200):
    listed = subprocess.run(['ps', '-e', '-o', 'sid=,stat=,args='], capture_output=True, text=True).stdout
    found = [line for line in listed.splitlines() if line.split()[0] == str(session) and line.split()[1][0] != 'Z']
    if not found:
      break
    time.sleep(0.1)
  return found


def below(served):
  """The processes below the front, and the session that they are in."""
  children = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(served.process.pid)], capture_output=True, text=True)
  (session,) = map(int, children.stdout.split())
  return session, subprocess.run(['ps', '-eww', '-o', 'sid=,args='], capture_output=True, text=True).stdout
