"""Every field of a run, its type and its default, in one place.

Config files (`configs/*.py`) build a `Config` from these dataclasses and hand
it to the command line as an `ml_collections.ConfigDict`; `convert.from_dict`
turns it back, strictly, and `rules.validate` lists everything wrong at once.
Nothing in this module touches a device.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import field

from hsa_jax.config.recurrent import (
  GlaConfig,
  InitialStateConfig,
  Mamba2Config,
)

# Such a field is left out of `config_hash` at its default, so that results of
# older runs still belong to the same configuration.
ADDED_LATER = {"added_later": True}

Schedule = tuple[tuple[int, int], ...]  # ((from_step, value), ...), ascending


class Landmark(enum.StrEnum):
  """Source of a chunk's landmark vector."""

  CLS = "cls"  # output of a learned token appended to the chunk
  MEAN = "mean"  # mean over the encoded tokens
  # Output of a token that the model inserts into its stream behind the chunk;
  # of tokens that share a retrieval, it is the one that asks (GCA).
  TOKEN = "token"


class Weighting(enum.StrEnum):
  """How the selected chunks share the read; see `ops.weights`."""

  STICK_BREAKING = "stick_breaking"
  SOFTMAX = "softmax"
  SOFTMAX_DECAY = "softmax_decay"  # softmax of score + learned slope * rank
  MASS = "mass"  # NSA: by attention mass, the retrieval score is discarded


class Residual(enum.StrEnum):
  """Where the retrieved vector H joins the stream x; M is the block's MLP."""

  BYPASS = "bypass"  # y = x + M(norm(x + H))
  STANDARD = "standard"  # y = x + H + M(norm(x + H))
  PLAIN = "plain"  # y = x + H, a block without an MLP


class Noise(enum.StrEnum):
  """What is added to the scores while chunks are being selected."""

  NONE = "none"
  GUMBEL = "gumbel"


class WindowOverlap(enum.StrEnum):
  """Whether chunks that lie in the sliding window may be retrieved."""

  ALLOW = "allow"
  EXCLUDE = "exclude"


class RetrievalHeads(enum.StrEnum):
  """How many selections of chunks each token makes."""

  SINGLE = "single"  # one selection, shared by all memory heads
  PER_MEMORY_HEAD = "per_memory_head"


class Mixer(enum.StrEnum):
  """How a layer moves information between tokens; see `models.mixers`."""

  WINDOW = "window"  # softmax over the last W keys
  FULL = "full"  # softmax over every key up to the token's own
  STICK_BREAKING = "stick_breaking"  # of every earlier key, nearest first
  MAMBA2 = "mamba2"  # a state that decays as a whole, head by head
  GLA = "gla"  # a state whose channels decay each by itself


class Mlp(enum.StrEnum):
  """What follows the mixer in a block."""

  GATED = "gated"  # SwiGLU behind a norm of its own
  NONE = "none"  # nothing, as in published Mamba models


class Position(enum.StrEnum):
  """Position signal of a layer's queries and keys."""

  # Keys cached unrotated, exact at any length; of windows only.
  RELATIVE_ROPE = "relative_rope"
  ABSOLUTE_ROPE = "absolute_rope"  # float32 angles; drifts past 1M tokens
  ALIBI = "alibi"  # logits fall with the distance; of windows only
  NONE = "none"


class BlockForm(enum.StrEnum):
  """How a layer's mixer Mix and its MLP M stand to each other."""

  SEQUENTIAL = "sequential"  # h = x + Mix(norm(x)), then h + M(norm(h))
  PARALLEL = "parallel"  # x + Mix(norm(x)) + M(norm(x)), of one norm


class Norm(enum.StrEnum):
  """What the stream is divided by before a layer reads it; with a gain."""

  RMS = "rms"  # its root mean square
  LAYER = "layer"  # its standard deviation, the mean taken off; no bias


class Remat(enum.StrEnum):
  """What the backward pass recomputes."""

  NONE = "none"
  BLOCK = "block"  # every layer, keeping its input and the selected chunks
  OFFLOAD = "offload"  # as block, with the inputs in the host's memory


class Haystack(enum.StrEnum):
  """What surrounds the needles, or is copied."""

  TEXT = "text"  # a stretch of the token store
  NOISE = "noise"  # RULER's repeated sentences
  RANDOM = "random"  # uniformly random ids; for copying and MQAR


class Needle(enum.StrEnum):
  """Kind of value that a needle hides and a question asks for."""

  DIGITS = "digits"  # an 8-digit decimal number
  IDS = "ids"  # 7 random token ids


class Task(enum.StrEnum):
  """What a source of training rows produces."""

  TEXT = "text"  # plain language modelling
  NIAH = "niah"  # needles in a haystack, questions at the end
  COPY = "copy"  # a stretch of the haystack, then the same once more
  MK_MQ = "mk_mq"  # many keyed needles, two asked for in one question
  VT = "vt"  # chains of assigned variables, asked for by their value
  FWE = "fwe"  # coded words; the most frequent ones are asked for
  PASSKEY = "passkey"  # ten random ids in a haystack
  GCA_PASSKEY = "gca_passkey"  # the same, all ten asked for
  GCA_MULTI_KEY = "gca_multi_key"  # keys and values of random ids
  GCA_HOPS = "gca_hops"  # paths of links between names of random ids
  MQAR = "mqar"  # key-value pairs of single ids, then many keys
  COPY_SPAN = "copy_span"  # a span of random ids somewhere, said again
  SELECTIVE_COPY = "selective_copy"  # scattered ids, said in their order
  INDUCTION = "induction"  # the id that followed a marker


class Guard(enum.StrEnum):
  """What becomes of an update that should not be made; `training.guard`."""

  IGNORE = "ignore"  # it is made
  STOP = "stop"  # the run ends, the batch is kept
  SKIP = "skip"  # parameters and optimizer stay as they are, the run goes on


class OptimizerName(enum.StrEnum):
  """How gradients become updates; see `training.optimizer`."""

  ADAMW = "adamw"
  MUON = "muon"  # orthogonalised momentum for matrices, AdamW for the rest


@dataclasses.dataclass(frozen=True)
class HsaConfig:
  """Chunk memory, retrieval and reads; `num_groups=0` means no memory."""

  num_groups: int = 1  # retrievals; each is followed by its share of layers
  chunk_size: int = 64  # S
  top_k: int = 8  # K, the number of slots
  num_memory_heads: int = 1  # key/value heads of the memory
  landmark_dim: int = 1024  # total, over all retrieval heads
  retrieval_heads: RetrievalHeads = RetrievalHeads.PER_MEMORY_HEAD
  encoder_layers: int = 1  # 0: the chunk's own hidden states
  encoder_mlp_dim: int = 2688
  encoder_prenorm: bool = False  # normalise the encoder's input
  landmark: Landmark = Landmark.CLS
  landmark_norm: bool = False  # RMSNorm on retrieval queries and landmarks
  # Off: the normalised stream asks, the encoder's output is the landmark.
  landmark_projection: bool = field(default=True, metadata=ADDED_LATER)
  # b: the first token of each b retrieves; with landmark = token it is 1, or
  # chunk_size: then the landmark token retrieves for the chunk behind it.
  tokens_per_retrieval: int = 1
  # Groups that read what the first of them retrieved.
  groups_per_retrieval: int = field(default=1, metadata=ADDED_LATER)
  selection_noise: Noise = Noise.NONE  # in training only, never on weights
  window_overlap: WindowOverlap = WindowOverlap.ALLOW
  weighting: Weighting = Weighting.STICK_BREAKING
  sink: int = 0  # 1: softmax-off-by-one inside each chunk
  qk_norm: bool = True  # RMSNorm on read queries and chunk keys
  residual: Residual = Residual.BYPASS
  block_window: bool = False  # a sliding-window sublayer before each read
  # Of read queries and chunk keys: none | absolute_rope.
  position: Position = field(default=Position.NONE, metadata=ADDED_LATER)
  implementation: str = "auto"  # auto | reference | dense | gather


@dataclasses.dataclass(frozen=True)
class LayerConfig:
  """One place of the pattern of layers; None is what the model says."""

  mixer: Mixer = Mixer.WINDOW
  position: Position | None = None
  qk_norm: bool | None = None
  window: int | None = None  # W of this layer; of windows only
  mlp: Mlp = field(default=Mlp.GATED, metadata=ADDED_LATER)


@dataclasses.dataclass(frozen=True)
class RopeConfig:
  """Rotary angles of full layers; may be set on a finished checkpoint.

  With `factor` above 1: YaRN (arXiv 2309.00071), which leaves fast pairs as
  they are, slows the slow ones down by the factor, and blends in between.
  """

  theta: float = 0.0  # base; 0: model.rope_theta
  factor: float = 1.0  # longest context over `original_length`; 1: no YaRN
  original_length: int = 0  # tokens that the model was trained on
  beta_fast: float = 32.0  # pairs with more turns over it are left alone
  beta_slow: float = 1.0  # pairs with fewer are slowed down by the factor
  attention_factor: float = 0.0  # of cosines and sines; 0: 0.1 ln(factor) + 1


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes and options of the whole model, the memory's under `hsa`."""

  vocab_size: int = 264
  embed_dim: int = 1024
  num_lower_layers: int = 6  # sliding-window blocks before the memory
  # After it, split evenly over the groups; 0: their own windows are the layers
  # (hsa.block_window).
  num_upper_layers: int = 6
  num_heads: int = 16
  num_kv_heads: int = 16  # of the sliding window
  head_dim: int = 64
  mlp_dim: int = 2816
  window_size: int = 512  # W: keys per query, the query's own included
  position: Position = Position.RELATIVE_ROPE
  rope_theta: float = 10_000.0
  qk_norm: bool = True
  norm_eps: float = 1e-6
  init_scale: float = 0.02  # standard deviation of every matrix
  tie_embeddings: bool = True
  compute_dtype: str = "float32"  # float32 | bfloat16, of matrix products
  remat: Remat = Remat.NONE
  window_implementation: str = "auto"  # auto | reference | banded | splash
  # Repeated over the depth, what is left of it cut off; (): windows only.
  layers: tuple[LayerConfig, ...] = field(default=(), metadata=ADDED_LATER)
  rope: RopeConfig = field(default=RopeConfig(), metadata=ADDED_LATER)
  # Of the layers; reads of the memory are what `hsa.residual` says.
  block: BlockForm = field(default=BlockForm.SEQUENTIAL, metadata=ADDED_LATER)
  # Of the layers and before the head; the memory's own norms are RMSNorm.
  norm: Norm = field(default=Norm.RMS, metadata=ADDED_LATER)
  logit_scale: float = field(default=1.0, metadata=ADDED_LATER)
  mamba2: Mamba2Config = field(default=Mamba2Config(), metadata=ADDED_LATER)
  gla: GlaConfig = field(default=GlaConfig(), metadata=ADDED_LATER)
  # auto | reference | blocked | splash | cudnn, of full and stick-breaking
  full_implementation: str = field(default="auto", metadata=ADDED_LATER)
  hsa: HsaConfig = field(default_factory=HsaConfig)


@dataclasses.dataclass(frozen=True)
class SourceConfig:
  """One kind of training row and its share of a stage."""

  weight: float = 1.0
  task: Task = Task.TEXT
  haystack: Haystack = Haystack.TEXT
  needle: Needle = Needle.DIGITS  # of Task.NIAH
  num_needles: int = 1  # VT: variables; GCA_HOPS: links; MQAR: pairs
  num_questions: int = 1  # needles asked for; VT: chains; GCA_HOPS: paths
  # VT: variables of a chain. The evaluation has 3; 1 is the way to learn it.
  # GCA_HOPS: links of a path; the evaluation has 2.
  chain_length: int = field(default=3, metadata=ADDED_LATER)


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """A stretch of training with one mixture, length and batch."""

  name: str = "main"
  num_steps: int = 1_000
  seq_len: int = 4_096
  batch_size: int = 16  # rows per optimizer step, over all devices
  sources: tuple[SourceConfig, ...] = (SourceConfig(),)
  # Segments that a row consists of, each drawn by itself: what stands in the
  # earlier ones distracts the later. 1: a row is one sample.
  neg_sampling_group: int = field(default=1, metadata=ADDED_LATER)
  # Steps that a row goes on through the text, each where the one before ended,
  # until it begins elsewhere. 1: every row is drawn by itself.
  stream_steps: int = field(default=1, metadata=ADDED_LATER)


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The text, its tokenizer, and the stages of training on it."""

  corpus: str = "sotu"  # name of a built-in corpus, or "files"
  store: str = "data/sotu-byte"  # folder of the token store
  tokenizer: str = "byte"  # byte | hf:/path/to/tokenizer.json
  # Share of all rows that S-NIAH, MK/MQ and VT replace, a third each.
  synthetic_mix: float = field(default=0.0, metadata=ADDED_LATER)
  stages: tuple[StageConfig, ...] = (StageConfig(),)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW or Muon, with linear warm-up, cosine decay and clipping."""

  name: OptimizerName = OptimizerName.ADAMW
  learning_rate: float = 1e-3  # peak; with Muon, of all but the matrices
  muon_learning_rate: float = 0.02  # peak, of the matrices; Muon only
  warmup_steps: int = 100
  final_learning_rate_ratio: float = 0.1  # of the peak, at the last step
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  weight_decay: float = 0.1  # matrices only: no norms, biases, embeddings
  clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Loss, schedules, and what happens every so many steps."""

  seed: int = 0
  answer_loss_weight: float = 0.0  # added mean loss of the answer tokens
  grad_accum_steps: int = 1  # micro-batches per optimizer step
  top_k_schedule: Schedule = ()  # ((step, K), ...); empty: hsa.top_k
  window_schedule: Schedule = ()  # ((step, W), ...); empty: window_size
  log_every: int = 20
  eval_every: int = 0  # validation loss; 0: only at the end
  eval_batches: int = 8
  checkpoint_every: int = 500  # steps; one is always saved at the end
  keep_checkpoints: int = 2  # the newest so many
  # Workdir or checkpoint whose parameters a new run begins with; "": none.
  init_from: str = field(default="", metadata=ADDED_LATER)
  # One is also saved where so many seconds have passed; 0: by steps alone.
  checkpoint_every_s: float = field(default=0.0, metadata=ADDED_LATER)
  # Checkpoints of every so many steps stay for good; 0: none.
  keep_every: int = field(default=0, metadata=ADDED_LATER)
  # Those of lowest validation loss stay; 0: none.
  keep_best: int = field(default=0, metadata=ADDED_LATER)
  # A loss or gradient that is not finite: stop | skip.
  on_nonfinite: Guard = field(default=Guard.STOP, metadata=ADDED_LATER)
  # A gradient norm above `spike_factor` times its running mean.
  on_spike: Guard = field(default=Guard.IGNORE, metadata=ADDED_LATER)
  spike_factor: float = field(default=10.0, metadata=ADDED_LATER)
  # More skipped steps end the run; 100 good ones make up for one.
  max_skips: int = field(default=10, metadata=ADDED_LATER)
  # Moments of the optimizer live in the host's memory between steps.
  offload_optimizer: bool = field(default=False, metadata=ADDED_LATER)
  # Steps between two looks at what the tokens select; 0: never.
  diagnose_every: int = field(default=100, metadata=ADDED_LATER)
  # (first, end): steps first .. end - 1 are traced; (): none.
  profile_steps: tuple[int, ...] = field(default=(), metadata=ADDED_LATER)
  initial_state: InitialStateConfig = field(
    default=InitialStateConfig(), metadata=ADDED_LATER
  )
  # Of Weights & Biases, which then gets every metric; "": none.
  wandb_project: str = field(default="", metadata=ADDED_LATER)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each axis; -1 takes what is left (one axis at most)."""

  data: int = -1
  fsdp: int = 1
  context: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that determines a run."""

  model: ModelConfig = field(default_factory=ModelConfig)
  data: DataConfig = field(default_factory=DataConfig)
  optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
  train: TrainConfig = field(default_factory=TrainConfig)
  mesh: MeshConfig = field(default_factory=MeshConfig)

  @property
  def num_steps(self) -> int:
    """Optimizer steps of the whole run: the sum over stages."""
    return sum(stage.num_steps for stage in self.data.stages)
