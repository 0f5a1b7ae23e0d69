"""Work done ahead in a background thread."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], *, depth: int = 2) -> Iterator[T]:
  """Yields `items`, made ahead in a background thread.

  An exception of the producer is raised in the consumer; a consumer that
  stops early ends the thread.
  """
  ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
  stop = threading.Event()

  def put(kind: str, value: Any) -> bool:
    while not stop.is_set():
      try:
        ready.put((kind, value), timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def produce() -> None:
    try:
      for item in items:
        if not put("item", item):
          return
      put("end", None)
    except BaseException as error:  # handed over, raised by the consumer
      put("error", error)

  thread = threading.Thread(target=produce, daemon=True)
  thread.start()
  try:
    while (got := ready.get())[0] == "item":
      yield got[1]
    if got[0] == "error":
      raise got[1]
  finally:
    stop.set()
    thread.join()
