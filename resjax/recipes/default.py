"""Every field of a run, once, with its unit or consequence. Recipes start from here and change a few.

Defaults are the sound choices; where the paper chose otherwise, the recipe sets the paper's.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  config = ConfigDict()

  # --- the method ---
  config.method = 'rsnet'  # or 'drnet': a predictor chooses each image's resolution
  # Input sizes in pixels, highest first: the order of distillation. One size trains an ordinary network; a size that
  # stands several times, such as (224, 224, 224), as many branches of it.
  config.resolutions = (224, 192, 160, 128, 96)
  # Shares of the channels, the highest first: (1.0, 0.5, 0.25) trains every size at each of them (docs/width.md).
  config.widths = (1.0,)
  # Above 0: of the branches, sizes at widths, each step trains the largest, the smallest, and so many of those between,
  # drawn at random (the sandwich rule, docs/width.md: slower on a CPU); 0: all of them.
  config.sandwich = 0
  # Who teaches: 'full' (ensemble and every larger size), 'vanilla' (ensemble only), 'none' (parallel training); 'full'
  # but for some of its teachers: 'without_ensemble', 'without_larger' (the larger sizes) and 'without_smaller' (the
  # sizes but the largest); 'inplace' (the largest, which alone learns from labels).
  config.distillation = 'full'
  config.distillation_weight = 1.0  # of all its terms in the loss; 1: the paper's
  config.label_smoothing = 0.0
  # What an image of each class counts in the cross-entropies: a number for each, or ('balanced',): all classes alike,
  # however many images they have. Brought to a mean of 1 over the training images. (): all images alike.
  config.class_weights = ()
  # What of BatchNorm each resolution has for itself: 'all', 'affine' (scale and bias), 'statistics' (mean and
  # variance), 'none' (the paper's ablation; worse at both ends). What it has not is one for all.
  config.private = 'all'
  config.shared_batch_norm = False  # True: as private='none'
  # True: BatchNorm normalises over the batch of all devices; False: over each device's own part.
  config.sync_batch_norm = False

  # --- DRNet ---
  config.drnet = ConfigDict()
  # 'scratch': network and predictor together from the start. 'pretrain': first the network alone at all resolutions (as
  # `distillation` says), then both. 'checkpoint': from a finished RS-Net run.
  config.drnet.start = 'pretrain'
  config.drnet.checkpoint = ''  # 'checkpoint': that run's workdir; the resolutions here are some of its own
  config.drnet.pretrain = ConfigDict()
  config.drnet.pretrain.epochs = 120.0  # 'pretrain': of the network alone; `epochs` are those that follow
  config.drnet.pretrain.learning_rate = 0.1
  config.drnet.pretrain.step_epochs = 30.0
  config.drnet.pretrain.warmup_epochs = 0.0
  config.drnet.frozen = False  # True: the predictor alone is trained, the network stays as it is, statistics included
  # How the predictor learns: 'dense' runs every resolution on every image, 'routed' each image at its own alone (less
  # work, noisier gradients), 'supervised' from labels, the smallest resolution at which the frozen network is right.
  config.drnet.estimator = 'dense'
  # Which images a resolution's BatchNorm counts in training: 'sent', those that were sent there, as the paper has it;
  # 'all', with 'dense', which runs them all there: each resolution stays as good alone, also where few are sent.
  config.drnet.statistics = 'sent'
  # Mean multiply-adds of an image, all that is run for it counted, the predictor too; at most 1: as a share of the
  # largest resolution's.
  config.drnet.budget = 0.6
  config.drnet.eta = 0.2  # weight of what the mean exceeds the budget by
  config.drnet.tau = 1.0  # temperature of the choice's gradient at the first step
  config.drnet.tau_end = 1.0  # and at the last: the same, or lower
  config.drnet.margin = 1.25  # 'routed': room at each resolution, over the share that the budget lets expect
  config.drnet.learning_rate_factor = 0.1  # the predictor's learning rate over the network's
  config.drnet.predictor = ConfigDict()
  config.drnet.predictor.name = 'small'  # 'small', or the paper's: 'resnet10' and 'mobile'
  config.drnet.predictor.size = 0  # of its input in pixels; 0: what it was made for (64, resnet10: 128)
  config.drnet.predictor.width = 1.0  # multiplies its channels

  # --- the network ---
  config.model = ConfigDict()
  config.model.name = 'resnet18'  # a key of resjax.models.MODELS, or your own: 'package.module:factory'
  config.model.num_classes = 1000
  config.model.width = 1.0  # multiplies the channels, where the model has a width
  # Of each block its channels inside, ((60,), (57,), ...), as `resjax prune` finds them; (): the architecture's.
  config.model.inner = ()
  config.model.zero_init_last_gamma = False  # residual blocks start as the identity
  config.model.dtype = 'float32'  # of the computation; parameters and statistics stay float32
  # Bits of the weights and activations of all convolutions but the first, learned (LQ-Nets), such as '2/32' or '2/2',
  # each 1 to 4, or 32 for float; '': none is quantised (docs/quantisation.md).
  config.model.quantise = ''

  # --- where training starts ---
  config.init = ConfigDict()
  config.init.checkpoint = ''  # a workdir whose network this one starts from: of a run, or imported; '': random weights
  # 'network': weights, and BatchNorm of the nearest size for each; 'shared': weights alone; 'all': alpha too.
  # A head of another number of classes is always new.
  config.init.what = 'network'

  # --- a teacher, whose answers are learned (docs/retarget.md) ---
  config.teacher = ConfigDict()
  # A workdir, of a run or imported: a frozen network of these classes, of any architecture; 'init': that of
  # init.checkpoint, as it was; '': none.
  config.teacher.checkpoint = ''
  # Its input in pixels, resized from the largest crop; 0: its own largest. Above ours, crops are made as large.
  config.teacher.resolution = 0
  config.teacher.weight = 1.0  # of its term in the loss
  config.teacher.temperature = 1.0  # divides its logits and ours in that term, which is multiplied by its square
  config.teacher.labels = True  # False: labels do not count, as where there are none; no cross-entropy

  # --- the data ---
  config.data = ConfigDict()
  config.data.source = 'tfds'  # 'tfds', 'folder', 'images' (files without labels), 'scaled_digits' or 'fake'
  config.data.name = 'imagenet2012'  # tfds: the data set's name, optionally with config and version
  config.data.dir = ''  # tfds: its data_dir (empty: TFDS's default); folder: holds train/<class>; or gs://BUCKET/..
  # images: what is scored, <class>/*.jpg, a class by its name or its number; '': how often each size says what the
  # teacher says, on some images of dir, which itself holds the files without labels.
  config.data.eval_dir = ''
  config.data.train_split = 'train'
  config.data.eval_split = 'validation'  # folder: 'val'; scaled_digits: 'test'
  # Of these classes alone, numbered in this order: their names, or a file (*.txt) with one in each line; (): of all.
  config.data.classes = ()
  config.data.size = 0  # fake: images in a split; scaled_digits: training images; 0: the source's own default
  # Training crop: 'random_resized' (area and aspect ratio drawn) or 'full' (the whole image).
  config.data.crop = 'random_resized'
  config.data.crop_area = (0.08, 1.0)  # fractions of the image's area
  config.data.crop_ratio = (3 / 4, 4 / 3)  # width / height
  # 'same': every resolution sees one crop; 'different': each draws its own (ablation; needs the host pyramid).
  config.data.crops = 'same'
  # Who makes the lower resolutions in training: 'device' (from the largest crop), 'host' (each from the full-size
  # crop, the paper's exact path: about half the images per second and core).
  config.data.pyramid = 'device'
  # 'none', 'shared' (one draw per image) or 'independent' (one per image and resolution: the paper's).
  config.data.flip = 'shared'
  # Operations of colour and shape on the crop, the same at every resolution: 'none', 'trivialaugment' (one, of any
  # strength) or 'randaugment'.
  config.data.augment = 'none'
  config.data.randaugment = (2, 9.0)  # 'randaugment': operations an image, and their strength, at most 30
  # Random erasing: the share of the images that get a box of the mean colour, the same one at every resolution.
  config.data.erase = 0.0
  # Images mixed with a neighbour, labels too: Beta's parameter, above 0, such as 0.2 for mixup and 1.0 for CutMix; with
  # both, each image gets one of them. An even number of images on each device.
  config.data.mixup = 0.0
  config.data.cutmix = 0.0
  # 'imagenet' (mean and standard deviation of each channel), 'unit' ([0, 1]: the paper's) or 'signed' ([-1, 1]); '':
  # that of the network that training starts from (init.checkpoint, drnet.checkpoint), as the recipe finetune has it.
  config.data.normalize = 'imagenet'
  # Encoded images that were read are kept: '' nowhere, 'memory', or a local folder that all processes and runs share.
  config.data.cache = ''
  config.data.workers = -1  # processes that decode; 0: threads of the main process; -1: by the processors (docs/data)
  config.data.threads = 4  # decoding threads, in each worker or in the main process
  config.data.max_bad_images = 0  # unreadable images that are skipped, named and counted before the run stops
  config.data.max_pixels = 2**26  # larger images are refused before they are decoded

  # --- evaluation ---
  config.eval = ConfigDict()
  config.eval.batch_size = 256  # images per step over all devices, rounded up to a multiple of them
  config.eval.every_epochs = 1  # 0: at the end only
  # 'host': each resolution resized and cropped from the full image (the reference); 'device': the lower ones from
  # the largest crop, as fast inference does.
  config.eval.pyramid = 'host'
  # drnet: the split that sets the cascade's threshold; empty: each half of data.eval_split sets the other's.
  config.eval.calibration_split = ''
  # Of evaluation's resizing: 'bilinear', or 'bicubic', as some pretrained networks want; '': as the start has it.
  config.eval.interpolation = 'bilinear'
  # So many of the images that are wrong at the largest resolution, the surest first, stand in mistakes.csv after each
  # evaluation, with what they were taken for; 0: there is no such file.
  config.eval.mistakes = 0
  # Short side = int(resolution / crop_fraction), then the centre crop; 0: as the start has it.
  config.eval.crop_fraction = 0.875

  # --- optimisation ---
  config.batch_size = 256  # images per step over all devices
  config.epochs = 120.0  # may be a fraction
  config.seed = 0
  config.optimizer = ConfigDict()
  config.optimizer.name = 'sgd'  # 'sgd' or 'adamw'
  config.optimizer.learning_rate = 0.1  # the highest of the schedule
  config.optimizer.schedule = 'cosine'  # 'cosine' (per step, to 0), 'step' or 'constant'
  config.optimizer.step_epochs = 30.0  # 'step': the rate falls every so many epochs
  config.optimizer.step_factor = 0.1  # 'step': by this factor
  config.optimizer.step_at = ()  # 'step': epochs at which it falls instead, such as (30, 60, 85)
  config.optimizer.warmup_epochs = 0.0  # linear, from 0
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = False
  config.optimizer.weight_decay = 1e-4
  # 'kernels' (convolutions and the classifier's matrix) or 'all' (BatchNorm, biases and alpha too: the paper's).
  config.optimizer.decay = 'kernels'
  # Pairs (pattern, factor): the learning rate's factor of parameters by path, such as 'stage1_block1/conv1/kernel', or
  # 'shared/*' and 'private/224/*'; of several the first that matches. 0: they stay, and so do the statistics of a
  # BatchNorm whose every parameter stays.
  config.optimizer.rates = ()
  # Patterns of parameters that stay, such as ('conv1/*', 'bn1/*', 'stage1_*'): in front of `rates`, with the factor 0.
  config.optimizer.freeze = ()
  # The learning rate's factor from one block to the one before it, from the head down to the stem: below 1 early layers
  # change less, such as 0.8. It comes on top of `rates`.
  config.optimizer.layer_decay = 1.0
  # 'batch': BatchNorm normalises by the batch, and its running statistics follow; 'kept': by the running statistics,
  # which stay as they are.
  config.optimizer.statistics = 'batch'
  config.optimizer.accumulate = 1  # steps whose gradients are averaged into one update
  # Above 0: an average of parameters and BatchNorm's statistics is kept and evaluated; its decay is warmed up.
  config.optimizer.ema_decay = 0.0

  # --- the machine ---
  config.parallel = 'shard_map'  # or 'pmap': the same numbers, on one host; about half as fast on a CPU
  # 'two_pass': the same step in about the memory of its largest resolution, some 1.2 times as long; DRNet's needs no
  # second pass (docs/memory.md).
  config.memory = 'joint'
  # What is computed anew on the way back instead of being kept: 'none', 'convolutions' (all but their outputs, so
  # BatchNorm and activations) or 'all' (a resolution's whole forward pass); the same numbers (docs/memory.md).
  config.remat = 'none'

  # --- what is kept ---
  config.log_steps = 50  # steps between lines of metrics
  config.wandb = ConfigDict()
  # The project of Weights & Biases that gets the metrics, too; '': none. Needs the extra wandb (docs/reliability.md).
  config.wandb.project = ''
  config.checkpoint = ConfigDict()
  config.checkpoint.every_epochs = 1.0
  config.checkpoint.keep = 2  # the latest so many; the best one by eval/top1_mean is kept besides
  return config
