"""The base experiment, field by field; `configs/base.py:tiny` is the same cut for a CPU.

Waveform -> STFT -> DDPM noise in closed form -> diffusion transformer that predicts the clean
spectrogram -> mean-square error, Adam. 5,388,802 parameters.

A field that is None is unset, on the command line too (`--config.schedule.steps=None`). Setting a
field that the chosen kind would ignore is an error.
"""

from ml_collections import ConfigDict, config_dict

OPTIONAL = config_dict.FieldReference  # has a value, and may be unset
UNSET_INT = lambda: config_dict.placeholder(int)
UNSET_FLOAT = lambda: config_dict.placeholder(float)
UNSET_BOOL = lambda: config_dict.placeholder(bool)
UNSET_PAIR = lambda: config_dict.placeholder(tuple)
UNSET_STR = lambda: config_dict.placeholder(str)


def get_config(size="base"):
    """Return the config for `--config=configs/base.py` or `--config=configs/base.py:tiny`."""
    config = ConfigDict()
    config.name = "base"
    config.seed = 0  # of initial weights, crops, t and noise
    config.workdir = "runs/base"  # checkpoints, logs, samples and report.html

    config.data = data = ConfigDict()
    data.source = "songbook"  # 300 pieces ("songbook:900": 900); or a folder of sound files,
    # a .jsonl or .csv list of songs, a Hugging Face name or local path
    data.cache_dir = "~/.cache/specdiff_jax"  # prepared songs, shared by all runs
    data.songbook_seconds = UNSET_FLOAT()  # songbook only: length of a piece, 30 where unset
    data.folder_labels = UNSET_BOOL()  # folder only: names of sub-folders are labels, not albums
    data.split = UNSET_STR()  # Hub only: use this split alone; all splits where unset
    data.revision = UNSET_STR()  # Hub only: branch, tag or commit; pinned in the manifest
    data.streaming = UNSET_BOOL()  # Hugging Face only: read rows without storing the data set
    data.audio_column = UNSET_STR()  # Hugging Face only, "audio" where unset
    data.caption_column = UNSET_STR()  # Hugging Face only: a text or a list of texts
    data.artist_column = UNSET_STR()  # Hugging Face only: splits never divide an artist
    data.album_column = UNSET_STR()  # Hugging Face only: used where there is no artist
    data.label_column = UNSET_STR()  # Hugging Face only: several, separated by commas
    data.license_column = UNSET_STR()  # Hugging Face only
    data.tempo_column = UNSET_STR()  # Hugging Face only: beats a minute
    data.song_column = UNSET_STR()  # Hugging Face only: rows with the same value are one song
    data.channels = 1  # 1 mono, 2 stereo
    data.loudness = "as_is"  # as_is; peak or lufs: every song is scaled to level_db
    data.level_db = UNSET_FLOAT()  # peak: dBFS of the loudest sample; lufs: LUFS of the song
    data.trim_db = UNSET_FLOAT()  # cut silence below this (dBFS) from both ends of every song
    data.max_error_fraction = 0.05  # a larger share of rejected files stops the preparation
    data.valid_fraction = 0.1  # held out by artist, for validation and the round trip
    data.test_fraction = 0.1  # held out by artist, for --mode=evaluate
    data.include_labels = UNSET_STR()  # comma-separated: only songs with one of these labels
    data.exclude_labels = UNSET_STR()  # comma-separated: only songs with none of these labels
    data.max_songs = UNSET_INT()  # use at most so many training songs
    data.placement = "auto"  # device: all songs in its memory; host: read by a thread; auto
    data.device_gigabytes = 8.0  # auto: int16 songs up to this size are placed on the device

    config.augment = augment = ConfigDict()  # of training crops, inside the step; unset is off
    augment.speed_semitones = UNSET_FLOAT()  # resample by up to +- so many semitones
    augment.time_roll = UNSET_FLOAT()  # start anywhere in this first fraction of the crop
    augment.swap = UNSET_FLOAT()  # stereo only: probability of swapping the channels
    augment.polarity = UNSET_FLOAT()  # probability of inverting the sign of the wave
    augment.low_pass_hz = UNSET_PAIR()  # (lowest, highest) cut-off, log-uniform
    augment.mix_up = UNSET_FLOAT()  # largest weight of another crop of the batch, at most 0.5
    augment.noise_db = UNSET_PAIR()  # (lowest, highest) signal-to-noise ratio of added white noise
    augment.gain_db = UNSET_FLOAT()  # gain, uniform in +- so many dB

    config.representation = representation = ConfigDict()
    representation.kind = "complex"  # complex, log_magnitude, log_mel, polar
    representation.sample_rate = 22_050  # Hz
    representation.n_fft = 1024  # samples a window; 512 bins once the Nyquist bin is dropped
    representation.hop = 256  # samples between frames
    representation.frames = 1024  # a crop of 1023 * 256 samples = 11.9 s
    representation.n_mels = UNSET_INT()  # log_mel only: bands
    representation.floor_db = UNSET_FLOAT()  # logarithmic kinds: the floor below full scale
    representation.power = OPTIONAL(0.5)  # complex only: |X| ** power compresses the peaks
    representation.griffin_lim_iters = UNSET_INT()  # kinds without phase
    representation.standardize = "band"  # mean and std of each "band", or one "global" pair
    representation.stats_crops = 256  # training crops that mean and std are computed from

    config.condition = condition = ConfigDict()  # what the model is conditioned on; here nothing
    condition.labels = False  # the songs' labels, any number a song
    condition.min_songs = UNSET_INT()  # labels: those of fewer training songs are not used
    condition.label_balance = UNSET_FLOAT()  # labels: repeat songs with a label that a smaller
    # share of the songs has
    condition.text = UNSET_STR()  # encoder of the captions: minilm, or hf:NAME_OR_FOLDER
    condition.max_tokens = UNSET_INT()  # text: longer captions are truncated
    condition.cross_heads = UNSET_INT()  # cross-attention heads of each block
    condition.scalars = ()  # of tempo (beats a minute), start (of the crop in its song), length
    condition.dropout = UNSET_FLOAT()  # probability of dropping all conditions, for guidance
    condition.modality_dropout = UNSET_FLOAT()  # and of dropping all labels, or the text
    condition.token_dropout = UNSET_FLOAT()  # highest rate of dropping single labels, scalars
    # and tokens of text

    config.schedule = schedule = ConfigDict()
    schedule.kind = "ddpm_linear"  # ddpm_linear, cosine, sigmoid, rectified_flow, edm
    schedule.steps = OPTIONAL(1000)  # ddpm_linear only: T
    schedule.beta_min = OPTIONAL(1e-4)  # ddpm_linear only
    schedule.beta_max = OPTIONAL(0.02)  # ddpm_linear only
    schedule.zero_terminal_snr = UNSET_BOOL()  # ddpm_linear only: alpha = 0 at t = 1
    schedule.start = UNSET_FLOAT()  # sigmoid only, -3 where unset
    schedule.end = UNSET_FLOAT()  # sigmoid only, 3 where unset
    schedule.sigma_min = UNSET_FLOAT()  # edm only, 0.004 where unset: sigma_data is 1
    schedule.sigma_max = UNSET_FLOAT()  # edm only, 160 where unset
    schedule.rho = UNSET_FLOAT()  # edm only, 7 where unset
    schedule.log_snr_shift = 0.0  # below zero: more noise at every t, for larger tensors

    config.diffusion = diffusion = ConfigDict()
    diffusion.prediction = "x0"  # x0, eps, v, velocity, edm
    diffusion.skip_variance = UNSET_FLOAT()  # x0 only: blend the output with x_t as EDM's c_skip
    # does; the mean-square error that the network cannot fall below with wide patches
    diffusion.timestep_sampling = "discrete"  # of t: discrete 1/T ... T/T; uniform, stratified,
    # logit_normal in (0, 1); log_normal in sigma / alpha (EDM)
    diffusion.timestep_sampling_mean = UNSET_FLOAT()  # logit_normal (0), log_normal (-0.5)
    diffusion.timestep_sampling_std = UNSET_FLOAT()  # logit_normal (1), log_normal (1.2)
    diffusion.loss_weighting = "target"  # target: the error of the prediction's own target; or of
    # the x_0 error: snr, min_snr, sigmoid, v, velocity, edm
    diffusion.loss_weighting_gamma = UNSET_FLOAT()  # min_snr only, 5 where unset
    diffusion.loss_weighting_bias = UNSET_FLOAT()  # sigmoid only, 0 where unset
    diffusion.loss = "mse"  # mse, huber
    diffusion.loss_delta = UNSET_FLOAT()  # huber only, 1 where unset
    diffusion.stft_loss_weight = UNSET_FLOAT()  # complex only: multi-resolution STFT loss

    config.model = model = ConfigDict()
    model.patch = (8, 8)  # (bins, frames) of one token: 64 x 128 = 8192 tokens
    model.width = 256  # of a token
    model.depth = 4  # blocks
    model.heads = 4  # attention heads, must divide width
    model.mlp_ratio = 4  # hidden width of a block's MLP over width
    model.mlp = "gelu"  # gelu, swiglu (as many parameters)
    model.norm = "layer"  # layer, rms
    model.qk_norm = False  # normalize queries and keys
    model.block = "pre_ln"  # pre_ln: time is added to the tokens; adaln_zero
    model.positions = "learned"  # learned: a table; sincos: a fixed one; rotary
    model.time_embedding = "dense"  # dense: Dense(1 -> width) of t; fourier: sinusoids of t
    model.bottleneck = UNSET_INT()  # width of a first, smaller embedding of each patch
    model.registers = 0  # tokens without a patch
    model.long_skips = False  # skips from the first half of the blocks to the second (U-ViT)
    model.scan = False  # one compiled body for all blocks
    model.attention = "auto"  # plain, blockwise (never an L x L map), cudnn (GPU, bfloat16)
    model.remat = "none"  # recompute in the backward pass: none, dots (all but matrix products),
    # attention (all but its output), block (all); on a CPU only with scan
    model.dtype = "auto"  # of the arithmetic: float32, bfloat16; auto: bfloat16 on a GPU, else
    # float32; parameters are always float32

    config.optimizer = optimizer = ConfigDict()
    optimizer.kind = "adam"  # adam, adamw, muon, schedule_free
    optimizer.learning_rate = 1e-4  # peak
    optimizer.warmup_steps = 0  # linear from zero
    optimizer.lr_schedule = "constant"  # after the warm-up: constant, linear or cosine to zero
    optimizer.b1 = 0.9  # decay of the first moment
    optimizer.b2 = 0.999  # decay of the second moment
    optimizer.weight_decay = UNSET_FLOAT()  # adamw and muon only
    optimizer.clip_norm = UNSET_FLOAT()  # clip gradients to this global norm
    optimizer.grad_accum_steps = 1  # micro-batches a step; must divide batch_size
    optimizer.ema_kind = "constant"  # of the average that is validated and sampled: constant
    # decay; power: a share of the run; schedule_free: the optimizer's own
    optimizer.ema_decay = UNSET_FLOAT()  # constant only
    optimizer.ema_decay = 0.999
    optimizer.ema_rel_std = UNSET_FLOAT()  # power only: its width as a share of the run

    config.finetune = finetune = ConfigDict()  # start from the weights of another model
    finetune.init_from = UNSET_STR()  # a run, RUN@STEP, or a folder of --mode=export
    finetune.refit_statistics = False  # mean and std of these songs instead of the source's
    finetune.trainable = UNSET_STR()  # regular expression: train parameters whose name matches
    finetune.last_blocks = UNSET_INT()  # train so many blocks and what follows them
    finetune.unfreeze_every = UNSET_INT()  # unfreeze one more block every so many steps
    finetune.layer_decay = UNSET_FLOAT()  # learning rate of a block over that of the next one
    finetune.lora_rank = UNSET_INT()  # train updates of this rank and freeze all the rest
    finetune.lora_alpha = UNSET_FLOAT()  # the updates are scaled by alpha / rank
    finetune.lora_layers = UNSET_STR()  # regular expression: weights that get updates

    config.train = train = ConfigDict()
    train.batch_size = 8  # crops a step
    train.num_epochs = OPTIONAL(5)  # an epoch is a permutation of all crops of all songs
    train.num_steps = UNSET_INT()  # or steps; set one of the two
    train.steps_per_dispatch = 1  # steps in one XLA program; all intervals are multiples of it
    train.eval_every = 50  # steps
    train.checkpoint_every = 50  # steps
    train.max_to_keep = 2  # newest checkpoints

    config.mesh = mesh = ConfigDict()  # the batch is split over all devices of all processes
    mesh.data = UNSET_INT()  # replicas of the train state; all devices / fsdp where unset
    mesh.fsdp = 1  # devices that a replica is sharded over

    config.profile_steps = UNSET_INT()  # trace so many steps, once warm, into workdir/profile

    config.valid = valid = ConfigDict()
    valid.crops = 8  # fixed held-out crops
    valid.num_noise_levels = 10  # the centers of equal bins of t
    valid.baseline_crops = 128  # training crops that the linear denoisers are fitted to

    config.sample = sample = ConfigDict()
    sample.sampler = "ddim"  # ddim, ddpm, euler, heun, dpmpp_2m, dpmpp_2m_sde, unipc
    sample.eta = 0.0  # ddim only: 0 deterministic, 1 ancestral
    sample.churn = 0.0  # heun only: EDM's S_churn
    sample.time_grid = "uniform"  # uniform (in t), log_snr, karras, aligned (to the model's errors)
    sample.nfe = 50  # network evaluations, at most
    sample.seconds = UNSET_FLOAT()  # of a clip, any length; as trained where unset
    sample.long_form = "windows"  # longer clips: overlapping "windows" that agree at every step,
    # or whole, by "positions" beyond those trained
    sample.window_overlap = 0.5  # of neighboring windows
    sample.prompt = UNSET_STR()  # a text (--prompt)
    sample.infer_labels = True  # a prompt without labels also sets the labels that it names
    sample.labels = UNSET_STR()  # "flute, organ" together, or composed: "+flute -drums 1.5*fast"
    sample.scalars = UNSET_STR()  # "tempo=120, start=0"
    sample.negative_prompt = UNSET_STR()  # a text
    sample.prompts = UNSET_STR()  # a .jsonl file, an object with these fields a line
    sample.guidance_scale = UNSET_FLOAT()  # classifier-free guidance, 1 (none) where unset
    sample.guidance_rescale = UNSET_FLOAT()  # phi: 1 restores the unguided standard deviation
    sample.guidance_interval = UNSET_PAIR()  # guide within (low, high) of t; everywhere where unset
    sample.autoguidance_scale = UNSET_FLOAT()  # guidance by a worse checkpoint; 1 is none
    sample.autoguidance_step = UNSET_INT()  # of that checkpoint, the newest where unset
    sample.autoguidance_workdir = UNSET_STR()  # of that checkpoint, the same where unset
    sample.num_samples = 4  # clips of each prompt and each edit
    sample.batch_size = 4  # clips at a time; clip k is the same for any
    sample.seed = 0
    sample.ema = True  # sample from the averaged parameters
    sample.checkpoint_step = UNSET_INT()  # the newest where unset
    sample.lora_scale = UNSET_FLOAT()  # of LoRA's updates, 1 where unset

    config.edit = edit = ConfigDict()  # of real music, with --mode=sample; unset is none
    edit.kind = UNSET_STR()  # variation, interpolation, inpaint, continuation
    edit.file = UNSET_STR()  # the sound to edit
    edit.offset = UNSET_FLOAT()  # seconds into it where the clip begins, 0 where unset
    edit.strength = UNSET_FLOAT()  # variation, interpolation: the t that sampling starts from
    edit.second_file = UNSET_STR()  # interpolation: the second sound
    edit.second_offset = UNSET_FLOAT()  # interpolation: seconds into it, 0 where unset
    edit.weight = UNSET_FLOAT()  # interpolation: of the second sound, 0.5 where unset
    edit.seconds = UNSET_PAIR()  # inpaint: (from, to) is generated
    edit.hertz = UNSET_PAIR()  # inpaint: (low, high) is generated
    edit.prefix_seconds = UNSET_FLOAT()  # continuation: how much of the file is kept
    edit.list = UNSET_STR()  # a .jsonl file, an edit with these fields a line

    config.evaluate = evaluate = ConfigDict()  # --mode=evaluate: clips sampled as `sample` says
    evaluate.split = "test"  # the songs that clips are compared with; "valid" to choose by
    evaluate.clips = 256  # of each checkpoint and of each control
    evaluate.reference_clips = 1024  # of each half of the held-out music, at most
    evaluate.embedders = ("musicnn", "logmel")  # or path:FOLDER
    evaluate.conditioning = UNSET_STR()  # captions, labels, unconditional; where unset the first
    # of these that the models take
    evaluate.compare_to = ()  # workdirs of other runs: same noise, same conditions
    evaluate.folder = UNSET_STR()  # of sound files to evaluate instead of a checkpoint
    evaluate.allow_missing = False  # continue, with a warning, where a file cannot be read
    evaluate.crops = 256  # of held-out music, denoised at every noise level
    evaluate.num_reconstructions = 8  # of these crops, at nine noise levels
    evaluate.listening_clips = 0  # of each checkpoint in a blind listening test; 0 is none

    config.sweep = sweep = ConfigDict()  # --mode=sweep: all combinations, best on valid, then test
    sweep.samplers = ("dpmpp_2m/karras", "ddim/uniform")  # sampler/time_grid
    sweep.nfe = (5, 10, 20, 50)
    sweep.guidance_scale = (1.0,)

    config.export = export = ConfigDict()  # --mode=export: a folder with weights and model card
    export.repo = UNSET_STR()  # OWNER/NAME on the Hugging Face Hub to upload it to

    config.search = search = ConfigDict()  # --mode=index embeds data.source, --mode=search queries
    search.embedder = UNSET_STR()  # embed:WORKDIR, backbone:WORKDIR, musicnn, logmel, path:FOLDER;
    # this run's own where unset
    search.block = UNSET_INT()  # backbone only: whose tokens are used; the middle one where unset
    search.noise_level = UNSET_FLOAT()  # backbone only: t of its input, 0.1 where unset
    search.hop = UNSET_FLOAT()  # seconds between windows; half a window where unset
    search.index = UNSET_STR()  # its folder; "index" in the workdir where unset
    search.query = UNSET_STR()  # a sound file (--query)
    search.seconds = UNSET_PAIR()  # (from, to) of it (--query_seconds)
    search.text = UNSET_STR()  # a description, where the embedder takes text (--text)
    search.labels = UNSET_STR()  # only songs with all of these (--labels)
    search.num_results = 10  # songs, at most

    config.head = head = ConfigDict()  # --mode=tag and embed: a head on the backbone of init_from
    head.block = 0  # the block whose tokens the head reads, 0 the first
    head.noise_level = 0.1  # t of the backbone's input, 0 is clean
    head.pool_queries = 4  # of attention pooling
    head.trainable = "all"  # all; head: the backbone is frozen; head_first: frozen for frozen_steps
    head.frozen_steps = UNSET_INT()  # head_first only
    head.backbone_lr_scale = UNSET_FLOAT()  # all, head_first: the backbone's learning rate over
    # the head's, 1 where unset
    head.windows = 8  # of each held-out song, evenly spread
    head.patience = UNSET_INT()  # validations without a better score that stop the training

    config.tag = tag = ConfigDict()  # --mode=tag
    tag.kinds = ()  # labels "kind:value" of these kinds are tags; all labels where empty
    tag.min_songs = 3  # labels of fewer training songs are no tags
    tag.class_balance = 0.0  # 0: every song counts alike; 1: every tag does
    tag.mix_up = UNSET_FLOAT()  # largest weight of another crop and of its tags, at most 0.5
    tag.freq_masks = UNSET_PAIR()  # SpecAugment: (how many, widest in bins)
    tag.time_masks = UNSET_PAIR()  # SpecAugment: (how many, longest in frames)
    tag.robustness = True  # also score the test songs under noise, gain, low-pass, mp3, pitch shift
    tag.write_sidecars = False  # --predict: also write NAME.tags.json beside each file

    config.embed = embed = ConfigDict()  # --mode=embed: vectors for search
    embed.dim = 128  # of a vector
    embed.loss = "softmax"  # two crops of a song against the batch: softmax (NT-Xent, SupCon, CLIP)
    # or sigmoid (SigLIP)
    embed.temperature = UNSET_FLOAT()  # softmax only: of crops; that of texts is trained
    embed.temperature = 0.1
    embed.kinds = ()  # songs that share a label "kind:value" are positives; none where empty
    embed.min_songs = UNSET_INT()  # kinds only: labels of fewer songs do not count, 1 where unset
    embed.text = UNSET_STR()  # encoder of the captions, as condition.text: texts in the same space
    embed.max_tokens = UNSET_INT()  # text only: longer captions are truncated
    embed.text_weight = UNSET_FLOAT()  # text only: weight of its loss, 1 where unset

    config.demo = demo = ConfigDict()  # the page of --mode=demo, which starts from `sample`
    demo.host = "127.0.0.1"  # this machine alone; "0.0.0.0" for all that can reach it
    demo.port = 7860
    demo.queue = 8  # requests that may wait; more are rejected
    demo.max_clips = 8  # of one request
    demo.max_nfe = 1000  # network evaluations of a clip
    demo.max_seconds = 60.0  # of a clip
    demo.max_upload_mb = 20.0
    demo.max_upload_seconds = 600.0

    if size == "tiny":
        shrink(config)
    elif size != "base":
        raise ValueError(f"configs/base.py has base and tiny, not {size!r}")
    return config


def shrink(config):
    """Cut the config to what a CPU trains in minutes: log-mel, and few, large patches."""
    config.name = "tiny"
    config.workdir = "runs/tiny"
    config.data.source = "songbook:900"  # 300 pieces are memorized after 4000 steps
    config.representation.update(
        kind="log_mel", n_mels=128, floor_db=-80.0, griffin_lim_iters=60, power=None, frames=256
    )
    config.schedule.update(kind="cosine", steps=None, beta_min=None, beta_max=None)
    config.diffusion.update(timestep_sampling="stratified", skip_variance=0.08, loss_weighting="v")
    config.model.update(patch=(128, 4), width=384, depth=2, heads=6)
    config.model.update(block="adaln_zero", time_embedding="fourier", positions="rotary")
    config.model.update(mlp="swiglu", qk_norm=True)
    config.optimizer.update(
        kind="adamw",
        learning_rate=3e-3,
        warmup_steps=100,
        lr_schedule="cosine",
        b2=0.95,
        weight_decay=0.01,
        clip_norm=1.0,
    )
    config.train.update(
        batch_size=16,
        num_epochs=None,
        num_steps=7000,
        steps_per_dispatch=20,
        eval_every=1000,
        checkpoint_every=1000,
    )
    config.valid.update(crops=128, baseline_crops=2048)
    config.sample.update(
        num_samples=8, batch_size=8, sampler="dpmpp_2m", time_grid="karras", nfe=20
    )
