"""The result page from a made-up study: what it says, that it needs nothing else, and that a browser shows it."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from resjax.report import page

SECTIONS = ['accuracy', 'speed', 'shares', 'gallery', 'calibration', 'agreement', 'crops', 'made']
PIXELS, MACS = (96, 16), (4e6, 1e6)


def share(*parts):
  return dict(zip(map(str, PIXELS), parts, strict=True))


def points(tops, **more):
  targets = (1.5e6, 3e6)
  return [
    {'target': t, 'macs': 1.01 * t, 'top1': top, 'share': share(0.3, 0.7)} | more for t, top in zip(targets, tops)
  ]


def spread(value):
  return {'median': value, 'low': 0.9 * value, 'high': 1.2 * value}


def way(name, macs, top1, **more):
  theory = MACS[0] / macs
  return {
    'name': name,
    'macs': macs,
    'top1': top1,
    'theory': theory,
    'target': None,
    'place': None,
    'milliseconds': spread(macs / 1e6),
    'speed_up': spread(0.8 * theory),
    'real_over_theory': spread(0.8),
  } | more


def picture(number, name, right):
  label = ('<b>cat</b>', 'dog')[number % 2]
  guess = label if right else 'bird'
  return {'number': number, 'name': name, 'label': label, 'guess': guess, 'right': right, 'probability': 0.876}


def row(kind, pixels, *images):
  return {'kind': kind, 'pixels': pixels, 'count': 10 * len(images), 'images': list(images)}


def make(**changes):
  """A study of two resolutions; the changes replace entries."""
  bins = [{'low': 0, 'high': 0.5, 'images': 0}]
  bins.append({'low': 0.5, 'high': 1, 'images': 40, 'confidence': 0.8, 'accuracy': 0.75})
  tops = (0.9123, 0.6)
  study = {
    'title': 'drnet, resnet_small, "pets" & <more>',
    'split': 'test',
    'images': {'scored': 1_234, 'of': 5_678, 'unreadable': 2, 'seed': 0},
    'calibration': {'images': 999, 'halved': False, 'origin': 'dial.npz'},
    'resolutions': [
      {'pixels': r, 'macs': m, 'top1': t, 'confidence': 0.85, 'ece': 0.0432, 'reliability': bins}
      for r, m, t in zip(PIXELS, MACS, tops)
    ],
    'curves': {
      'static': [{'macs': m, 'top1': t, 'share': share(1, 0)} for m, t in zip(MACS, tops)],
      'predictor': points((0.8, 0.9), recovered=0.5),
      'cascade': points((0.82, 0.91), recovered=None),
      'random': points((0.7, 0.85)),
      'oracle': points((0.9, 0.95)),
    },
    'setting': {
      'router': 'predictor',
      'how': 'as trained',
      'macs': 2e6,
      'top1': 0.877,
      'share': share(0.25, 0.75),
      'by_class': {'<b>cat</b>': share(0.5, 0.5), 'dog': share(0.0, 1.0)},
    },
    'agreement': [[1.0, 0.7], [0.7, 1.0]],
    'mended': [[0.0, 0.6], [None, 0.0]],
    'gallery': [
      row('smallest', 16, picture(0, 'photos/a.jpg', True), picture(1, 'photos/b.jpg', True)),
      row('smallest', 96, picture(2, 'photos/c.jpg', True)),
      row('never', 96, picture(3, 'photos/d.jpg', False)),
      row('sent_right', 16, picture(0, 'photos/a.jpg', True)),
      row('sent_wrong', 16),
    ],
    'crops': [{'pixels': 16, 'from_full_image': 0.61, 'from_largest_crop': 0.6, 'other_class': 0.042}],
    'speed': {
      'images': 128,
      'batch': 64,
      'rounds': 5,
      'ways': [
        way('static', MACS[0], tops[0], place=0),
        way('static', MACS[1], tops[1], place=1),
        way('predictor', 1.5e6, 0.8, target=1.5e6),
        way('setting', 2e6, 0.877),
      ],
    },
    'reported': {'pyramid': 'host', 'top1': {'96': 0.9, '16': 0.61}, 'images': 5_678},
    'command': 'resjax report --workdir=runs/pets',
    'date': '2026-01-02 03:04 UTC',
    'machine': {'machine': 'Some CPU', 'processors': 2, 'device': 'cpu', 'devices': 1},
    'dtype': 'float32',
    'versions': {'jax': '0.10.2'},
    'config': {'batch_size': 64, 'seed': 0},
    'changed': {'batch_size': 64},
  }
  return study | changes


def pictures():
  """Two of each kind: PNG and JPEG."""
  rng = np.random.default_rng(0)
  return {n: rng.integers(0, 256, (side, side, 3), np.uint8) for n, side in enumerate((16, 16, 96, 96))}


class Outline(HTMLParser):
  """What stands in a page: its tags with their attributes, and whether they close."""

  def __init__(self, html):
    super().__init__()
    self.tags, self.open = [], []
    self.feed(html)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in ('meta', 'link', 'img', 'br'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else():
  html = page.render(make(), pictures())
  outline = Outline(html)
  assert outline.open == []
  assert [a['id'] for tag, a in outline.tags if tag == 'section'] == SECTIONS
  assert not re.search(r'https?:|//[a-z]|@import|url\((?!#)', re.sub(r'base64,[^"]+', '', html))
  for tag, attributes in outline.tags:
    for name in ('src', 'href', 'xlink:href'):
      assert attributes.get(name, '#').startswith(('#', 'data:'))
    assert tag != 'img' or attributes['alt']
    assert tag != 'svg' or attributes['aria-label']
  ids = [a['id'] for _, a in outline.tags if 'id' in a]
  assert len(ids) == len(set(ids))


def test_the_page_says_what_was_found():
  html = page.render(make(), pictures())
  text = ' '.join(re.sub(r'<[^>]+>', ' ', html).split())
  for expected in [
    '1,234 of the 5,678 images of test ; 2 could not be read',
    '999 other images (dial.npz)',
    '91.2 % top-1 at 96 px, 4.00 M multiply-adds',
    '87.7 % top-1 with the predictor (as trained)',
    '50 % of the multiply-adds of 96 px: 2.00 M',
    '1.60× as fast as 96 px here; 2.00× in multiply-adds',
    'at most 1.42 points',
    'predictor 1.50 M 1.51 M +1.0 80.0 50',
    'cascade 3.00 M 3.03 M +1.0 91.0 –',
    'oracle 3.00 M 3.03 M 95.0',
    'predictor 1.50 M 1.50 M 1.500 1.350–1.800 2.13 1.92–2.56 2.67 0.80 0.72–0.96',
    'all 25.0 75.0',
    'Needs 96 px: wrong at every lower resolution 10 images',
    'Sent to 16 px: wrong 0 images',
    'dog → bird 96 px, 88 %',
    '96 px 85.0 91.2 4.32',
    '16 px – 0.0',
    '16 px 61.00 60.00 -1.00 4.20 61.00',
    'resjax report --workdir=runs/pets',
  ]:
    assert expected in text
  assert '<title>drnet, resnet_small, &#34;pets&#34; &amp; &lt;more&gt;' in html and '<b>cat' not in html


def test_what_is_not_known_is_left_out():
  html = page.render(make(reported=None, changed=None), pictures())
  assert 'Reported' not in html and 'otherwise than' not in html


def test_of_many_classes_the_extremes_are_shown():
  shares = {f'class {n:02}': share(n / 30, 1 - n / 30) for n in range(30)}
  html = page.render(make(setting=make()['setting'] | {'by_class': shares}), pictures())
  assert [n for n in range(30) if f'<td>class {n:02}</td>' in html] == [*range(10), *range(20, 30)]
  assert 'Of 30 classes' in html


def test_small_pictures_are_exact_and_large_ones_jpeg():
  addresses = [page.data_uri(pixels) for pixels in pictures().values()]
  assert [a.split(';')[0] for a in addresses] == ['data:image/png'] * 2 + ['data:image/jpeg'] * 2


# --- in a browser ---


@pytest.fixture(scope='module')
def browser():
  names = ('chromium', 'chromium-headless-shell', 'chromium-browser', 'google-chrome')
  path = next(filter(None, map(shutil.which, names)), None)
  if path is None:
    pytest.skip(f'needs a browser: none of {", ".join(names)} on the PATH')
  sync_api = pytest.importorskip('playwright.sync_api')
  with sync_api.sync_playwright() as playwright:
    started = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])  # root has no sandbox
    yield started
    started.close()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_browser_shows_it_without_complaint(browser, tmp_path, scheme):
  file = tmp_path / 'report.html'
  file.write_text(page.render(make(), pictures()), encoding='utf-8')
  view = browser.new_page(viewport={'width': 390, 'height': 800}, color_scheme=scheme)
  complaints, requests = [], []
  view.on('console', lambda message: complaints.append(message.text))
  view.on('pageerror', lambda error: complaints.append(str(error)))
  view.on('request', lambda request: requests.append(request.url))
  view.goto(file.as_uri(), wait_until='load')
  assert complaints == [] and [r for r in requests if not r.startswith('data:')] == [file.as_uri()]
  assert view.title().startswith('drnet, resnet_small, "pets" & <more>')
  assert view.eval_on_selector_all('section', 'all => all.map(s => s.id)') == SECTIONS
  widths = view.eval_on_selector_all('img', 'all => all.map(i => i.complete && i.naturalWidth)')
  assert widths == [16, 16, 96, 96, 16]
  heights = view.eval_on_selector_all('svg', 'all => all.map(s => s.getBoundingClientRect().height)')
  assert len(heights) == 4 and min(heights) > 50
  assert view.evaluate('document.documentElement.scrollWidth') <= 390  # wide tables scroll by themselves
  ink = view.eval_on_selector('svg text', 'text => getComputedStyle(text).fill')
  assert ink == view.evaluate('getComputedStyle(document.body).color')
  view.close()
