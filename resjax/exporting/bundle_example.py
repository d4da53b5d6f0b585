"""Classifies images with the bundle beside it: python example.py BUDGET IMAGE ... Needs onnxruntime, numpy and pillow.

BUDGET is one of the cascade's in manifest.json, where the bundle was calibrated: each image runs from the lowest
resolution up, until the network is sure enough. With budget 1 all run at the highest.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

here = pathlib.Path(__file__).parent
about = json.loads((here / 'manifest.json').read_text(encoding='utf-8'))
knobs = {**about['knobs'].get('cascade', {}), '1': float('inf')}
if len(sys.argv) < 3 or sys.argv[1] not in knobs:
  sys.exit(f'error: expected IMAGE after one of the budgets {", ".join(knobs)}')
models = [onnxruntime.InferenceSession(str(here / name)) for name in about['models']]
budget, (rows, columns), prepared = sys.argv[1], about['resolutions'][0], about['preprocessing']
knob = knobs[budget]
for path in sys.argv[2:]:
  image = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
  h, w = (int(side / prepared['crop_fraction']) for side in (rows, columns))  # the image just covers this, both ways
  wide = h * image.width >= w * image.height
  h, w = (h, int(h * image.width / image.height)) if wide else (int(w * image.height / image.width), w)
  left, top = round((w - columns) / 2), round((h - rows) / 2)
  image = image.resize((w, h), Image.Resampling[prepared['interpolation'].upper()])
  crops = np.asarray(image.crop((left, top, left + columns, top + rows)))[None]
  for place in [0] if budget == '1' else range(len(models) - 1, -1, -1):
    logits = models[place].run(None, {'crops': crops})[0][0].astype(float)
    ordered = np.sort(logits)
    if ordered[-1] - ordered[-2] - np.log(np.exp(ordered[:-1] - ordered[-2]).sum()) >= -knob:  # log(p / (1 - p))
      break
  probability = 1 / np.exp(logits - ordered[-1]).sum()
  print(f'{path}  {about["classes"][logits.argmax()]}  {100 * probability:.1f} %  {about["models"][place]}')
