"""Do given parameters fit declared ones? Names and types, told in words."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_origin

import yaml

EXAMPLES = {int: 3, float: 0.5, str: "triplet", bool: True, list: [0, 1], dict: {"key": 1}}
KINDS = {kind.__name__: kind for kind in EXAMPLES}


class ParameterError(ValueError):
    """A parameter that the notebook does not have, or a value of the wrong type."""


@dataclass(frozen=True)
class Parameter:
    """What a notebook's parameters cell or a measuring function takes."""

    name: str
    kind: type
    default: Any

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is inspect.Parameter.empty


def of_function(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a function with plain annotations (`list[str]` counts as list)."""
    found = inspect.signature(function).parameters.values()
    return {
        p.name: Parameter(p.name, get_origin(p.annotation) or p.annotation, p.default)
        for p in found
    }


def check_parameters(declared: dict[str, Parameter], given: dict[str, Any], name: str) -> None:
    """Raise ParameterError for an unknown name or a wrong type; an int is fine for a float."""
    for key, value in given.items():
        if key not in declared:
            raise ParameterError(_unknown(key, list(declared), name))
        if not _fits(value, declared[key]):
            raise ParameterError(_mistyped(value, declared[key], name))


def _unknown(key: str, names: list[str], notebook: str) -> str:
    if not names:
        return f"{notebook} takes no parameters (no cell is tagged 'parameters'), not even '{key}'."
    closest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
    listed = ", ".join(sorted(names))
    return f"{notebook} has no parameter '{key}'; the closest is '{closest}', all are: {listed}."


def _fits(value: Any, parameter: Parameter) -> bool:
    if value is None:
        return parameter.default is None
    if isinstance(value, bool):
        return parameter.kind is bool
    allowed = (int, float) if parameter.kind is float else parameter.kind
    return isinstance(value, allowed)


def _mistyped(value: Any, parameter: Parameter, notebook: str) -> str:
    usable = not parameter.required and parameter.default not in (None, "", [], {})
    example = parameter.default if usable else EXAMPLES[parameter.kind]
    shown = yaml.safe_dump(example, default_flow_style=True, width=1000).splitlines()[0]
    return (
        f"{notebook}: parameter '{parameter.name}' takes {parameter.kind.__name__}, "
        f"for example {parameter.name}={shown}, and was given {value!r} ({type(value).__name__})."
    )
