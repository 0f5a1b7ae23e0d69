"""`jax.jit` for functions of a module, without walking the module every call.

Collecting the arrays of a module takes Python a millisecond, as long as a small
decode step computes. Modules here never change once they are built, so the
arrays of each are collected once.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax


def jit_of_module(
  function: Callable[..., Any],
  *,
  static_argnames: tuple[str, ...] = (),
  donate_argnums: tuple[int, ...] = (),
  out_shardings: Any = None,
  compiler_options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
  """Compiles `function(module, *args, **kwargs)`.

  Args:
    function: its first argument is a module that is never changed.
    static_argnames: arguments to compile for; pass them by keyword.
    donate_argnums: arguments that are used up.
    out_shardings: of the results; None leaves them to the compiler.
    compiler_options: of XLA.

  Returns:
    A function of the same arguments. Equal modules share their programs, which
    its attribute `programs` holds by structure.
  """
  programs: dict[Any, Any] = {}
  known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

  def remember(module: Any) -> tuple[Any, list[Any]]:
    leaves, structure = jax.tree.flatten(module)

    def run(arrays: list[Any], *args: Any, **kwargs: Any) -> Any:
      return function(jax.tree.unflatten(structure, arrays), *args, **kwargs)

    if structure not in programs:
      programs[structure] = jax.jit(
        run,
        static_argnames=static_argnames,
        donate_argnums=donate_argnums,
        out_shardings=out_shardings,
        compiler_options=compiler_options,
      )
    return programs[structure], leaves

  @functools.wraps(function)
  def call(module: Any, *args: Any, **kwargs: Any) -> Any:
    if module not in known:
      known[module] = remember(module)
    program, leaves = known[module]
    return program(leaves, *args, **kwargs)

  vars(call)["programs"] = programs
  return call
