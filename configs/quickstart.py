"""HSA on real text, trained for minutes on a CPU: the main job.

Run:      python train.py --config=configs/quickstart.py --workdir=runs/quickstart
Evaluate: python eval.py --checkpoint=runs/quickstart --lengths=256,4K,64K,1M
All:      make quickstart

A byte-level model on the State of the Union speeches. Two stages: one needle in
short rows of running English, then rows four times as long in which other
needles are the distractors. Muon is what makes this short: with AdamW alone the
same model stays at chance for hundreds of steps. docs/recipe.md has the figures.
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
    name="english",
    num_steps=300,
    seq_len=256,
    batch_size=16,
    sources=(
      niah(0.75, c.Haystack.TEXT, 1),
      niah(0.1, c.Haystack.NOISE, 1),
      c.SourceConfig(weight=0.15),
    ),
  ),
  c.StageConfig(
    name="crowd",
    num_steps=600,
    seq_len=1024,
    batch_size=4,
    sources=(
      niah(0.35, c.Haystack.TEXT, 4),
      niah(0.2, c.Haystack.TEXT, 2),
      niah(0.15, c.Haystack.TEXT, 1),
      niah(0.1, c.Haystack.NOISE, 1),
      c.SourceConfig(weight=0.2),
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
    encoder_mlp_dim=512,
    weighting=c.Weighting.SOFTMAX,
  )
  model = c.ModelConfig(
    vocab_size=264,
    embed_dim=128,
    num_lower_layers=2,
    num_upper_layers=1,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    mlp_dim=512,
    window_size=32,
    init_scale=0.09,
    hsa=hsa,
  )
  return c.Config(
    model=model,
    data=c.DataConfig(stages=stages),
    optimizer=c.OptimizerConfig(
      name=c.OptimizerName.MUON,
      learning_rate=3e-3,
      muon_learning_rate=0.02,
      warmup_steps=30,
      final_learning_rate_ratio=0.02,
      weight_decay=0.02,
    ),
    train=c.TrainConfig(answer_loss_weight=2.0, checkpoint_every=200),
  )


def get_config():
  return c.to_config_dict(build())
