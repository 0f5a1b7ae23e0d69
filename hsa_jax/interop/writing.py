"""Continuations of prompts, cut at the texts that end them."""

from hsa_jax.data.text_stream import TextStream
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.inference import generate
from hsa_jax.interop.reader import Reader
from hsa_jax.interop.requests import Generation, first_stop, prompt_tokens


def continue_prompt(
  reader: Reader, tokenizer: Tokenizer, prompt: str, how: Generation
) -> str:
  """The text that follows `prompt`, read at the device memory of a segment.

  It ends before the first of `how.until`, where the model ends the document,
  or after `how.max_tokens`.

  Raises:
    MemoryHomeError: if the chunks do not fit the home.
  """
  tokens = prompt_tokens(tokenizer, prompt)
  stream, text = TextStream(tokenizer), ""
  with reader.decoder(tokens, how.max_tokens) as decoder:
    for (token,) in generate(
      decoder,
      max_tokens=how.max_tokens,
      sampling=how.sampling,
      stop_token=tokenizer.eos_id,
      vocab_size=tokenizer.vocab_size,
    ):
      known = len(text)
      text += stream.add(token)
      stop = first_stop(text, how.until, known)
      if stop is not None:
        return text[:stop]
  known = len(text)
  text += stream.finish()
  return text[: first_stop(text, how.until, known)]
