"""Classes and enumerations that have the names of recorded ones and no others."""

from __future__ import annotations

import inspect
from typing import Any


class Enumeration:
    """Members of an enumeration, as pybind11 makes them: they are no numbers, but int() gives one."""

    def __init__(self, name: str, members: dict[str, int]) -> None:
        self._members = {key: _Member(name, key, value) for key, value in members.items()}

    def __getattr__(self, key: str) -> _Member:
        try:
            return self.__dict__['_members'][key]
        except KeyError:
            raise AttributeError(key) from None

    def __iter__(self) -> Any:
        return iter(self._members.values())

    def of(self, key: str) -> _Member:
        """The member of that name."""
        return self._members[key]


class _Member:
    def __init__(self, kind: str, name: str, value: int) -> None:
        self._kind, self.name, self._value = kind, name, value

    def __int__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f'<{self._kind}.{self.name}: {self._value}>'


class Kept:
    """Takes no attribute that the real class does not have."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith('_') and not hasattr(type(self), name):
            raise AttributeError(f'{type(self).__name__} has no {name}')
        object.__setattr__(self, name, value)


def restricted(kind: type, names: dict[str, Any]) -> type:
    """The class without what the real one lacks; what is left has the real parameters."""
    for name, member in list(vars(kind).items()):
        if name.startswith('_'):
            continue
        if name not in names:
            delattr(kind, name)
        elif inspect.isfunction(member):
            parameters = list(inspect.signature(member).parameters)[1:]
            signatures = names[name] or []
            # Of one with parameters that have defaults a part will do.
            assert any(parameters == known[: len(parameters)] for known in signatures) or not parameters, (
                f'{kind.__name__}.{name}{parameters} is {signatures}'
            )
    return kind
