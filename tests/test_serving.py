"""A started server over a tiny network: answers, refusals, counts, and its end."""

import http.client
import json
import pathlib
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
import serving
from serving import Served, alive, below, encoded, status_of

from resjax.inference import Classifier
from resjax.resolution import name

CAPACITY, TIMEOUT, MOST = 6, 2.0, 50_000
PIXELS = 3000
FORM = 'multipart/form-data; boundary=x'
OPTIONS = (
  f'--capacity={CAPACITY}',
  f'--timeout={TIMEOUT}s',
  f'--max-bytes={MOST}',
  '--top-k=2',
  '--max-batch=4',
  f'--max-pixels={PIXELS}',
)


@pytest.fixture(scope='module')
def photographs():
  return serving.photographs()


@pytest.fixture(scope='module')
def folder(photographs, tmp_path_factory):
  return serving.bundled(tmp_path_factory.mktemp('bundle') / 'tiny', photographs)


@pytest.fixture(scope='module')
def served(folder):
  found = Served(f'--bundle={folder}', *OPTIONS)
  yield found
  if found.process.poll() is None:
    found.process.terminate()
    found.end()


@pytest.fixture(scope='module')
def classifier(folder):
  return Classifier.load(folder, max_batch=4)


def row(prediction):
  fields = ('class_index', 'label', 'probability', 'macs')
  found = {field: getattr(prediction, field) for field in fields}
  return found | {'resolution': name(prediction.resolution), 'top': [guess._asdict() for guess in prediction.top]}


def same(answer, expected):
  """Whether an answer is a prediction; a batch of another size sums in another order."""
  flat = lambda found: [found['probability'], *(guess['probability'] for guess in found['top'])]
  assert flat(answer) == pytest.approx(flat(expected), abs=1e-5)
  rest = lambda found: {key: found[key] for key in ('class_index', 'label', 'macs', 'resolution')}
  assert rest(answer) == rest(expected)


def test_an_image_gets_the_answer_of_predict(served, classifier, photographs):
  for image, expected in zip(photographs[:4], classifier.predict(photographs[:4], top_k=2)):
    status, answer = served.ask(body=image)
    assert status == 200 and list(answer) == ['class_index', 'label', 'probability', 'resolution', 'macs', 'top']
    same(answer, row(expected))


def form(*parts):
  head = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
  return b''.join(head % (n, b'; filename="%s"' % f if f else b'', content) for n, f, content in parts) + b'--x--\r\n'


def test_a_name_that_is_no_utf8_comes_back_as_a_file_of_that_name_is_shown(served, photographs):
  status, answer = served.ask(body=form((b'a', b'caf\xe9.png', photographs[0])), kind=FORM)
  assert status == 200 and answer['predictions'][0]['image'] == r'caf\udce9.png'


def test_what_is_not_asked_so_is_told_how(served):
  connection = http.client.HTTPConnection('127.0.0.1', served.port, timeout=20)
  connection.request('GET', '/predict')
  response = connection.getresponse()
  assert (response.status, response.getheader('Allow')) == (405, 'POST')
  connection.close()


@pytest.mark.parametrize('way', ['address', 'form', 'msgpack', 'list'])
def test_several_images_and_a_budget_of_their_own(served, classifier, photographs, way):
  images = photographs[:5]
  path = '/predict?budget=0.6' if way in ('address', 'list') else '/predict'
  parts = [(b'image', b'%d.png' % i, image) for i, image in enumerate(images)]
  body = {
    'address': form(*parts),
    'form': form(*parts, (b'budget', b'', b'0.6')),
    'msgpack': msgspec.msgpack.encode({'images': images, 'budget': 0.6}),
    'list': msgspec.msgpack.encode(images),
  }[way]
  kind = FORM if way in ('address', 'form') else 'application/msgpack'
  status, answer = served.ask(path=path, body=body, kind=kind)
  assert status == 200
  rows = answer['predictions']
  assert [found['image'] for found in rows] == [f'{i}.png' if 'x' in kind[-1] else str(i) for i in range(5)]
  expected = classifier.predict(images, budget=0.6, top_k=2)
  assert len({p.resolution for p in expected}) == 2
  for found, prediction in zip(rows, expected):
    same(found, row(prediction))


def test_requests_that_come_at_once_are_answered_each_and_what_is_no_image_harms_none(served, classifier, photographs):
  asked = [(photographs[0], ''), (b'no image', ''), (photographs[1], '?budget=0.6'), (photographs[2][:40], '')] * 6
  with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda each: served.ask(body=each[0], path='/predict' + each[1]), asked))
  assert [status for status, _ in found] == [200, 422, 200, 422] * 6
  same(found[20][1], row(classifier.predict(photographs[0], top_k=2)[0]))
  same(found[22][1], row(classifier.predict(photographs[1], budget=0.6, top_k=2)[0]))
  assert found[1][1]['error'].startswith('not an image file (8 bytes)')


def test_among_several_images_those_that_are_none_have_an_error(served, photographs):
  status, answer = served.ask(body=msgspec.msgpack.encode([photographs[0], b'no']), kind='application/msgpack')
  good, bad = answer['predictions']
  assert status == 200 and good['label'] and list(bad) == ['image', 'error'] and bad['image'] == '1'
  status, answer = served.ask(body=msgspec.msgpack.encode([b'no', b'nor']), kind='application/msgpack')
  assert status == 422 and ['error' in found for found in answer['predictions']] == [True, True]


@pytest.mark.parametrize(
  ('status', 'error', 'asked'),
  [
    (400, 'body: empty, expected an image', {}),
    (400, 'body: got no images', {'body': b'\x90', 'kind': 'application/msgpack'}),
    (400, 'image 0: empty', {'body': b'\x91\xc4\x00', 'kind': 'application/msgpack'}),
    (400, 'body: malformed', {'body': b'\xc1', 'kind': 'application/msgpack'}),
    (400, 'body: malformed', {'body': b'nothing', 'kind': 'multipart/form-data; boundary=x'}),
    (400, 'body: malformed', {'body': b'nothing', 'kind': 'multipart/form-data'}),
    (400, "budget: got 'much', expected a share", {'body': b'x', 'path': '/predict?budget=much'}),
    (400, "address: got 'budgets', expected budget alone", {'body': b'x', 'path': '/predict?budgets=0.6'}),
    (400, "address: got 'budget', expected budget alone", {'body': b'x', 'path': '/predict?budget=0.6&budget=1'}),
    (400, 'budget: got two', {'body': form(*[(b'budget', b'', b'1')] * 2), 'kind': FORM}),
    (400, 'body: malformed (Object contains unknown', {'body': b'\x81\xa1x\x01', 'kind': 'application/msgpack'}),
    (400, 'body: malformed (LineTooLong: Got more', {'body': form((b'a', b'a' * 9000, b'x')), 'kind': FORM}),
    (400, r'image \udcff: empty', {'body': form((b'a', b'\xff', b'')), 'kind': FORM}),
    (400, r'body: malformed (UnicodeEncodeError: ', {'body': b'x', 'kind': 'multipart/form-data; boundary=\xff'}),
    (400, "budget: got '9999", {'body': b'x', 'path': '/predict?budget=' + '9' * 5000}),
    (400, 'budget: got 0.001, expected 0.', {'path': '/predict?budget=0.001'}),
    (413, 'body: too large, expected at most 50000 bytes', {'body': bytes(MOST + 1)}),
    (413, 'body: too large', {'body': iter([bytes(MOST), bytes(9)]), 'encode_chunked': True}),
    (413, 'body: too large', {'body': form((b'a', b'a', bytes(MOST))), 'kind': 'multipart/form-data; boundary=x'}),
    (
      413,
      'body: got 7 images, expected at most 6',
      {'body': b'\x97' + b'\xc4\x01x' * 7, 'kind': 'application/msgpack'},
    ),
    (422, '60 x 51 pixels, more than max_pixels = 3000', {'body': encoded(np.zeros((51, 60, 3), np.uint8))}),
    (404, 'Not Found', {'path': '/other', 'body': b'x'}),
    (405, 'Method Not Allowed', {'method': 'GET'}),
  ],
)
def test_what_is_wrong_is_refused_in_one_line(served, photographs, status, error, asked):
  if 'path' in asked and '0.001' in asked['path']:
    asked['body'] = photographs[0]
  found, answer = served.ask(**asked)
  assert found == status and answer['error'].startswith(error) and '\n' not in answer['error']
  assert len(answer['error']) < 500


def test_who_is_too_many_is_refused_and_who_is_too_slow(served, photographs):
  held = [served.slow(photographs[0]) for _ in range(CAPACITY)]
  deadline = time.monotonic() + 10
  while 'resjax_images_under_way 6.0' not in served.ask('GET', '/metrics')[1]:
    assert time.monotonic() < deadline
  assert served.ask(body=photographs[1]) == (429, {'error': 'full: 6 images are under way'})
  held[0].sendall(photographs[0][-1:])
  assert [status_of(opened) for opened in held] == [200] + [408] * (CAPACITY - 1)
  for opened in held:
    opened.close()
  assert served.ask(body=photographs[1])[0] == 200


@pytest.mark.parametrize(
  ('status', 'sent'),
  [
    (400, b'NOTHING\r\n\r\n'),
    (400, b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n'),
    (400, b'POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'),
    (400, b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc'),
    (None, b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc'),
  ],
)
def test_broken_http_is_refused_and_prints_nothing(served, status, sent):
  with socket.create_connection(('127.0.0.1', served.port), timeout=20) as opened:
    opened.sendall(sent)
    if status is not None:
      assert status_of(opened) == status
  assert served.ask('GET', '/ready')[0] == 200  # what it prints is looked at when it ends


def test_health_and_counts(served, photographs):
  assert served.ask('GET', '/health') == (200, {'status': 'alive'})
  assert served.ask('GET', '/ready') == (200, {'status': 'ready'})

  def counts():
    lines = re.findall(r'^(resjax_\S+|mosec_remaining_task) (\S+)$', served.ask('GET', '/metrics')[1], re.MULTILINE)
    return {key: float(value) for key, value in lines}

  before = counts()
  served.ask(body=photographs[0])
  served.ask(body=b'no image')
  after = counts()
  change = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
  buckets = [key for key in change if 'bucket' in key]
  assert {key for key in change if key not in buckets} == {
    'resjax_requests_total{status="200"}',
    'resjax_requests_total{status="422"}',
    'resjax_images_total{resolution="16"}',
    'resjax_unreadable_images_total',
    'resjax_multiply_adds_total',
    'resjax_request_seconds_count',
    'resjax_request_seconds_sum',
  }
  assert change['resjax_images_total{resolution="16"}'] == 1 and after['mosec_remaining_task'] == 0


def test_behind_its_front_others_on_the_machine_get_nothing(served, photographs):
  session, listed = below(served)
  (config,) = re.findall(rf'^ *{session} .* (/\S+/mosec/config\.json)$', listed, re.MULTILINE)
  port = json.loads(pathlib.Path(config).read_text())['port']
  assert pathlib.Path(config).parents[1].stat().st_mode & 0o077 == 0  # where the key is
  for task in ({'image': photographs[0], 'arrived': 0.0}, {'image': photographs[0], 'arrived': 0.0, 'key': 'é'}, 7):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    connection.request('POST', '/image', msgspec.msgpack.encode(task))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert (response.status, content) == (422, b'request validation error: not of the server')


def test_at_the_end_what_was_let_in_is_answered_and_nothing_is_left(served, photographs):
  served.ask(body=photographs[0])
  held = served.slow(photographs[0])
  while 'resjax_images_under_way 1.0' not in served.ask('GET', '/metrics')[1]:
    pass
  session, _ = below(served)
  served.process.send_signal(signal.SIGTERM)
  while served.ask('GET', '/ready') != (503, {'status': 'draining'}):
    pass
  assert served.ask(body=photographs[0]) == (503, {'error': 'the server is draining'})
  held.sendall(photographs[0][-1:])
  assert status_of(held) == 200
  held.close()
  rest, code = served.end()
  assert code == 0
  assert re.fullmatch(r'draining: 1 images under way\nstopped: all \d+ requests that were let in are answered\n', rest)
  assert alive(session) == []
  with socket.socket() as opened:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the next server does
    opened.bind(('127.0.0.1', served.port))
