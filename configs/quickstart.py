"""HSA on real text, trained for minutes on a CPU: the main job.

Run:      python train.py --config=configs/quickstart.py --workdir=runs/quickstart
Evaluate: python eval.py --checkpoint=runs/quickstart --lengths=256,4K,64K,1M
All:      make quickstart

A byte-level model on the State of the Union speeches. The order of the data
matters more than its amount: the needle is first found among repeated
sentences, where it stands out, then in English, at growing length and among
other needles. From running English alone the same model stays at chance.
"""

from hsa_jax import config as c


def niah(weight, haystack, num_needles):
  """Rows with needles, all of them asked for."""
  return c.SourceConfig(
    weight=weight,
    task=c.Task.NIAH,
    haystack=haystack,
    num_needles=num_needles,
    num_questions=num_needles,
  )


STAGES = (
  c.StageConfig(
    name="find",
    num_steps=220,
    seq_len=192,
    batch_size=24,
    sources=(niah(1.0, c.Haystack.NOISE, 1),),
  ),
  c.StageConfig(
    name="english",
    num_steps=300,
    seq_len=384,
    batch_size=12,
    sources=(
      niah(0.45, c.Haystack.TEXT, 2),
      niah(0.35, c.Haystack.TEXT, 1),
      niah(0.1, c.Haystack.NOISE, 1),
      c.SourceConfig(weight=0.1),
    ),
  ),
  c.StageConfig(
    name="crowd",
    num_steps=300,
    seq_len=1024,
    batch_size=4,
    sources=(
      niah(0.4, c.Haystack.TEXT, 4),
      niah(0.25, c.Haystack.TEXT, 2),
      niah(0.2, c.Haystack.TEXT, 1),
      niah(0.05, c.Haystack.NOISE, 1),
      c.SourceConfig(weight=0.1),
    ),
  ),
)


def build(stages=STAGES) -> c.Config:
  """The configuration; the control starts from it."""
  hsa = c.HsaConfig(
    num_groups=1,
    chunk_size=16,
    top_k=4,
    num_memory_heads=1,
    landmark_dim=128,
    encoder_layers=1,
    encoder_mlp_dim=256,
    weighting=c.Weighting.SOFTMAX,
    implementation="dense",
  )
  model = c.ModelConfig(
    vocab_size=264,
    embed_dim=128,
    num_lower_layers=2,
    num_upper_layers=1,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    mlp_dim=256,
    window_size=32,
    init_scale=0.09,
    hsa=hsa,
  )
  return c.Config(
    model=model,
    data=c.DataConfig(stages=stages),
    optimizer=c.OptimizerConfig(learning_rate=3e-3, warmup_steps=30),
    train=c.TrainConfig(answer_loss_weight=1.0, checkpoint_every=200),
  )


def get_config():
  return c.to_config_dict(build())
