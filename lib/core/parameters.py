"""Do given parameters fit declared ones? Names and types, told in words."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_origin

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
    of: type | None = None  # what a list holds, where it is known

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is inspect.Parameter.empty


def of_function(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a function with plain annotations."""
    found = inspect.signature(function).parameters.values()
    made = {}
    for p in found:
        kind = get_origin(p.annotation) or p.annotation
        held = get_args(p.annotation)[0] if kind is list and get_args(p.annotation) else None
        made[p.name] = Parameter(p.name, kind, p.default, held)
    return made


def check_parameters(declared: dict[str, Parameter], given: dict[str, Any], name: str) -> None:
    """Raise ParameterError for an unknown name or a wrong type; an int is fine for a float."""
    for key, value in given.items():
        if key not in declared:
            raise ParameterError(_unknown(key, list(declared), name))
        if not _fits(value, declared[key]):
            raise ParameterError(_mistyped(value, declared[key], name))
        wrong = [x for x in value if not _is(x, declared[key].of)] if declared[key].of else []
        if wrong:
            raise ParameterError(_misheld(wrong[0], declared[key], name))


def _unknown(key: str, names: list[str], notebook: str) -> str:
    if not names:
        return f"{notebook} takes no parameters (no cell is tagged 'parameters'), not even '{key}'."
    closest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
    listed = ", ".join(sorted(names))
    return f"{notebook} has no parameter '{key}'; the closest is '{closest}', all are: {listed}."


def _fits(value: Any, parameter: Parameter) -> bool:
    if value is None:
        return parameter.default is None
    return _is(value, parameter.kind)


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of a kind; an int is fine for a float, a bool is only a bool."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _mistyped(value: Any, parameter: Parameter, notebook: str) -> str:
    usable = not parameter.required and parameter.default not in (None, "", [], {})
    example = parameter.default if usable else EXAMPLES[parameter.kind]
    shown = yaml.safe_dump(example, default_flow_style=True, width=1000).splitlines()[0]
    return (
        f"{notebook}: parameter '{parameter.name}' takes {parameter.kind.__name__}, "
        f"for example {parameter.name}={shown}, and was given {value!r} ({type(value).__name__})."
    )


def _misheld(value: Any, parameter: Parameter, notebook: str) -> str:
    quote = f'; write "{str(value).lower()}" with quotes' if parameter.of is str else ""
    return (
        f"{notebook}: '{parameter.name}' is a list of {parameter.of.__name__} and holds {value!r} "
        f"({type(value).__name__}){quote}."
    )
