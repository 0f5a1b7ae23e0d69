"""Which class draws which kind of sample."""

from collections.abc import Callable

from hsa_jax.config.fields import SourceConfig, Task
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.copying import CopyTask
from hsa_jax.data.tokens.frequent_words import FrequentWordsTask
from hsa_jax.data.tokens.gca import GcaTask
from hsa_jax.data.tokens.layout import TokenTask
from hsa_jax.data.tokens.mqar import MqarTask
from hsa_jax.data.tokens.multi_query import MultiQueryTask
from hsa_jax.data.tokens.niah import NiahTask
from hsa_jax.data.tokens.passkey import PasskeyTask
from hsa_jax.data.tokens.variables import VariableTask

MAKERS: dict[Task, Callable[[SourceConfig, Tokenizer], TokenTask]] = {
  Task.NIAH: NiahTask,
  Task.MK_MQ: MultiQueryTask,
  Task.VT: VariableTask,
  Task.FWE: FrequentWordsTask,
  Task.PASSKEY: PasskeyTask,
  Task.GCA_PASSKEY: GcaTask,
  Task.GCA_MULTI_KEY: GcaTask,
  Task.GCA_HOPS: GcaTask,
  Task.MQAR: MqarTask,
  Task.COPY_SPAN: CopyTask,
  Task.SELECTIVE_COPY: CopyTask,
  Task.INDUCTION: CopyTask,
}
MK_MQ = SourceConfig(task=Task.MK_MQ, num_needles=6, num_questions=2)
VT = SourceConfig(task=Task.VT, num_needles=6)
GCA_KEYS = SourceConfig(task=Task.GCA_MULTI_KEY, num_needles=6)
# One path of two links asked for, another to distract.
GCA_HOPS = SourceConfig(task=Task.GCA_HOPS, num_needles=4, chain_length=2)
# What `data.synthetic_mix` draws from, each as likely as the others.
SYNTHETIC = (SourceConfig(task=Task.NIAH), MK_MQ, VT)


def make_task(source: SourceConfig, tokenizer: Tokenizer) -> TokenTask:
  """The task of a source whose rows are laid out around an answer.

  Raises:
    ValueError: the source breaks a rule of its task.
  """
  return MAKERS[source.task](source, tokenizer)
