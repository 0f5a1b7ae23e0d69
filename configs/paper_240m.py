"""The paper's main model as far as it is known (arXiv 2510.17196).

Run:      python train.py --config=configs/paper_240m.py --workdir=runs/paper_240m
Check:    python train.py --config=configs/paper_240m.py --workdir=runs/paper_240m --check
Pods:     --config=configs/paper_240m.py:v5e-16, or :v5e-256 with eight times the
          rows a step over an eighth of the steps; parameters whole on each chip
Estimate: python -m hsa_jax.cli.estimate --config=configs/paper_240m.py:v5e-16 --topology=v5e:4x4
          python -m hsa_jax.cli.estimate --config=configs/paper_240m.py:v5e-256 --topology=v5e:16x16
Expect:   not measured here: it needs an accelerator and a large corpus.

Known:    about 240M parameters, sliding window 512, chunks of 64, top 8, per
          token retrieval, stick-breaking weights, training length 4096,
          chunk memory at mid depth, CLS encoder and bypassing residual.
Unknown:  width, depth, heads, memory heads, landmark width, groups, encoder
          depth, vocabulary, corpus, optimizer, learning rate, batch and steps.
          The shape below lands on 243.5M; 131,072 tokens a step over 61,440
          steps and the optimizer are assumptions of this project.
The reference's window counts the keys before the token, so 512 there is 513
here. Give a token store of your own: `--config.data.store=DIR`, and its
tokenizer: `--config.data.tokenizer=hf:/path/to/tokenizer.json`.
"""

from hsa_jax import config as c

ROWS = {"v5e-16": 32, "v5e-256": 256}  # of a step, by pod


def get_config(pod="v5e-16"):
  rows = ROWS[pod]
  hsa = c.HsaConfig(
    num_groups=1,
    chunk_size=64,
    top_k=8,
    num_memory_heads=1,
    landmark_dim=1024,
    encoder_layers=2,
    encoder_mlp_dim=2688,
    weighting=c.Weighting.STICK_BREAKING,
    residual=c.Residual.BYPASS,
  )
  model = c.ModelConfig(
    vocab_size=50_280,
    embed_dim=1024,
    num_lower_layers=6,
    num_upper_layers=6,
    num_heads=16,
    num_kv_heads=16,
    head_dim=64,
    mlp_dim=2816,
    window_size=513,
    compute_dtype="bfloat16",
    remat=c.Remat.BLOCK,
    hsa=hsa,
  )
  stage = c.StageConfig(
    name="pretrain",
    num_steps=61_440 * 32 // rows,
    seq_len=4_096,
    batch_size=rows,
  )
  return c.to_config_dict(
    c.Config(
      model=model,
      data=c.DataConfig(corpus="files", store="data/corpus", stages=(stage,)),
      optimizer=c.OptimizerConfig(
        learning_rate=1e-3, warmup_steps=1_200 * 32 // rows
      ),
      train=c.TrainConfig(checkpoint_every=1_000, eval_every=1_000),
    )
  )
