"""Training configurations: frozen dataclasses, read from YAML.

A file's keys are the dataclass's field names, sections being nested dataclasses; what a file leaves out
keeps its default. Each dataclass checks its own values.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from hand_mesh_ros.errors import ConfigurationError

Configuration = TypeVar('Configuration')

Precision = Literal['float32', 'bfloat16']


@dataclass(frozen=True)
class LoopConfiguration:
    """How long and how fast to train; the same for every network.

    :raises ConfigurationError: numbers out of their range.
    """

    steps: int = 20000
    batch_size: int = 256  #: of each process
    learning_rate: float = 1e-3  #: at its highest: it rises over the warm-up, then falls as a cosine to zero
    warmup_steps: int = 200
    weight_decay: float = 0.0
    gradient_clip: float = 1.0  #: largest norm of the gradient
    log_every: int = 50  #: steps
    evaluate_every: int = 500  #: steps
    checkpoint_every: int = 500  #: steps
    seed: int = 0
    precision: Precision = 'float32'  #: of the network's matrix products; bfloat16 is slow on CPUs without it

    def __post_init__(self) -> None:
        for name in ('steps', 'batch_size', 'log_every', 'evaluate_every', 'checkpoint_every'):
            require(self, name, at_least=1)
        require(self, 'warmup_steps', at_least=0)
        require(self, 'weight_decay', at_least=0)
        require(self, 'seed', at_least=0)
        require(self, 'learning_rate', above=0)
        require(self, 'gradient_clip', above=0)


def require(
    configuration: object,
    name: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Check one number of a configuration.

    :raises ConfigurationError: it is outside the bounds given, or not finite.
    """
    value = getattr(configuration, name)
    # Written so that a NaN is refused
    if at_least is not None and not at_least <= value < float('inf'):
        raise ConfigurationError(f'{name} is {value}, must be at least {at_least}')
    if above is not None and not above < value < float('inf'):
        raise ConfigurationError(f'{name} is {value}, must be above {above}')
    if below is not None and not value < below:
        raise ConfigurationError(f'{name} is {value}, must be below {below}')


def load_configuration(path: Path, kind: type[Configuration]) -> Configuration:
    """Read a configuration of that dataclass from a YAML file.

    :raises ConfigurationError: a file that cannot be read, keys that the dataclass does not have, values
        of the wrong type or out of range. Names the path and the key.
    """
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), _Loader)
    except OSError as error:
        raise ConfigurationError(f'{path}: cannot be read: {error.strerror}') from error
    except Exception as error:  # dates, numbers and depths that are none make PyYAML raise nearly anything
        raise ConfigurationError(f'{path}: not YAML: {error}') from error
    try:
        return configuration_from(content if content is not None else {}, kind)
    # The others: numbers of hundreds of digits, too long for a float or to be shown.
    except (ConfigurationError, OverflowError, ValueError) as error:
        raise ConfigurationError(f'{path}: {error}') from error


class _Loader(yaml.SafeLoader):
    """YAML without aliases: some lines of aliases of aliases stand for more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError(f'aliases such as *{self.peek_event().anchor} are not read; write it out')
        return super().compose_node(parent, index)


def configuration_from(content: Any, kind: type[Configuration]) -> Configuration:
    """A configuration of that dataclass from nested dictionaries, such as ``dataclasses.asdict`` makes.

    :raises ConfigurationError: as ``load_configuration``.
    """
    if not isinstance(content, Mapping):
        raise ConfigurationError(f'must be keys and values, is {content!r}')
    types = typing.get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        raise ConfigurationError(f'no such key: {", ".join(unknown)}; there are {", ".join(known)}')
    values = {}
    for key, value in content.items():
        try:
            values[key] = _converted(value, types[key])
        except ConfigurationError as error:
            raise ConfigurationError(f'{key}: {error}') from error
    return kind(**values)


def _converted(value: Any, kind: Any) -> Any:
    if is_dataclass(kind):
        return configuration_from(value, kind)  # type: ignore[arg-type]
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise ConfigurationError(f'{value!r} is none of {", ".join(map(str, typing.get_args(kind)))}')
        return value
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_converted(item, typing.get_args(kind)[0]) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    # YAML's true is an int to isinstance
    if type(value) is not kind:
        if typing.get_origin(kind) is tuple:
            raise ConfigurationError(f'{value!r} is no list')
        hint = ' (YAML wants a point in it: 1.0e-3)' if kind is float and isinstance(value, str) else ''
        raise ConfigurationError(f'{value!r} is not of type {kind.__name__}{hint}')
    return value
