"""DRT, the differentiable-retrieval transformer, as published (arXiv 2410.01651).

Run:      python train.py --config=configs/drt_128m.py --workdir=runs/drt_128m
Check:    python train.py --config=configs/drt_128m.py --workdir=runs/drt_128m --check
Estimate: python -m hsa_jax.cli.estimate --config=configs/drt_128m.py --topology=v5e:2x4
Twice:    --config=configs/drt_128m.py:2 retrieves before upper layers 1 and 4
Expect:   not measured here: it needs an accelerator and a large corpus.

Known:    width 768, 12 heads of 64, 6 + 6 layers, SwiGLU of 2048, RMSNorm with
          1e-5, tied embeddings of 50,265 ids (GPT-2's and specials), ALiBi, no
          norm of queries and keys; chunks of 63 tokens and a landmark, top 8,
          two encoder layers, one retrieval head, Gumbel noise, softmax weights,
          softmax-off-by-one in each chunk, bypassing residual. Rows of 16,380
          tokens, 32 a step, 60,000 steps, AdamW (0.9, 0.95), weight decay 0.001,
          peak 0.002 after 2% of warm-up, cosine, clipping at 1, bfloat16. The
          schedule of the published script ends at 0, whatever minimum it names.
          Micro-batches of 8 rows are ours: they change memory, not the step.
Unknown:  initialisation, width of the encoder's MLP (2048 here), where two
          retrievals stand (3 + 3 layers here), Adam's epsilon, what weight decay
          spares. It is called 128M; the sizes above give more, see `estimate`.
Differs:  queries and keys of the encoder are normalised here. The landmark has
          a vector of its own, not a row of the vocabulary, so no logit is spent
          on it. The reference's window counts the keys before the token: 512
          there is 513 here, landmarks among them.
Give a token store of your own: `--config.data.store=DIR` (PG19 or ArXiv there),
and its tokenizer: `--config.data.tokenizer=hf:/path/to/tokenizer.json`.
"""

from hsa_jax import config as c

UPPER_LAYERS = 6


def get_config(retrievals: str = "1"):
  hsa = c.HsaConfig(
    num_groups=UPPER_LAYERS,
    groups_per_retrieval=UPPER_LAYERS // int(retrievals),
    chunk_size=63,
    top_k=8,
    num_memory_heads=12,
    landmark_dim=768,
    landmark_projection=False,
    retrieval_heads=c.RetrievalHeads.SINGLE,
    encoder_layers=2,
    encoder_mlp_dim=2048,
    encoder_prenorm=True,
    landmark=c.Landmark.TOKEN,
    tokens_per_retrieval=63,
    selection_noise=c.Noise.GUMBEL,
    weighting=c.Weighting.SOFTMAX,
    sink=1,
    qk_norm=False,
    residual=c.Residual.BYPASS,
    block_window=True,
  )
  model = c.ModelConfig(
    vocab_size=50_265,
    embed_dim=768,
    num_lower_layers=6,
    num_upper_layers=0,
    num_heads=12,
    num_kv_heads=12,
    head_dim=64,
    mlp_dim=2048,
    window_size=513,
    position=c.Position.ALIBI,
    qk_norm=False,
    norm_eps=1e-5,
    compute_dtype="bfloat16",
    remat=c.Remat.BLOCK,
    hsa=hsa,
  )
  stage = c.StageConfig(
    name="pretrain", num_steps=60_000, seq_len=16_380, batch_size=32
  )
  return c.to_config_dict(
    c.Config(
      model=model,
      data=c.DataConfig(corpus="files", store="data/corpus", stages=(stage,)),
      optimizer=c.OptimizerConfig(
        learning_rate=2e-3,
        warmup_steps=1_200,
        final_learning_rate_ratio=0.0,
        weight_decay=1e-3,
      ),
      train=c.TrainConfig(
        grad_accum_steps=4, checkpoint_every=1_000, eval_every=1_000
      ),
    )
  )
