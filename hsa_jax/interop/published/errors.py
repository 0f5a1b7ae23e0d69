"""What is wrong with a folder of published weights."""

from collections.abc import Sequence

MOST_LINES = 12  # of one message


class PublishedError(ValueError):
  """Weights that cannot be read as one of the models here.

  Attributes:
    problems: one line each: the file, the field or tensor, the fix.
  """

  def __init__(self, where: object, problems: Sequence[str]):
    self.problems = list(problems)
    lines = self.problems[:MOST_LINES]
    if len(self.problems) > len(lines):
      lines.append(f"and {len(self.problems) - len(lines)} more like these")
    super().__init__("\n  ".join([f"{where}: cannot be loaded", *lines]))
