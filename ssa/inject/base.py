"""The class below `SSLContext`, which programs and `ssl` itself reach by `super(SSLContext, SSLContext)`."""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

from ssa.inject.standard import CContext, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Setting:
    """A setting as `ssl.SSLContext`'s own base class has it: of that class's contexts, and of ours.

    `ssl` sets those of contexts that were made before the injection by the name `SSLContext`, which is ours then.
    truststore sets ours by the descriptor of `ssl.SSLContext`'s base class.
    """

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else self._theirs.__get__(instance, owner)

    def __set__(self, instance: object, value: Any) -> None:
        descriptor = vars(_ssa_class(instance))[self._name] if is_ssa(instance) else self._theirs
        descriptor.__set__(instance, value)


class Kind(type):
    """The type of `SSLContext`: contexts that `ssl` made before the injection are instances too.

    Libraries refuse a context that is no `ssl.SSLContext`, and mean by that name the class that is there now.
    """

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or (
            cls.__base__ is Base and type.__instancecheck__(Context, instance)
        )


class Base(metaclass=Kind):
    """The base class of ssa's contexts: `super(SSLContext, SSLContext)` resolves to it."""

    options = _Setting(CContext.options)
    minimum_version = _Setting(CContext.minimum_version)
    maximum_version = _Setting(CContext.maximum_version)
    verify_flags = _Setting(CContext.verify_flags)
    verify_mode = _Setting(CContext.verify_mode)
    _msg_callback = _Setting(CContext._msg_callback)


def is_ssa(context: object) -> bool:
    """True for a context of ssa's; False for one that `ssl` made before the injection, and for anything else."""
    return Base in type(context).__mro__


def _ssa_class(context: object) -> type:
    """Ssa's own `SSLContext`, whichever subclass of it the context is of."""
    line = type(context).__mro__
    return line[line.index(Base) - 1]
