"""The parameters cell of a notebook: what it declares, and whether given values fit."""

import ast
import difflib
from dataclasses import dataclass
from typing import Any

import yaml
from nbformat import NotebookNode

from lib.core import params

EXAMPLES = {int: 3, float: 0.5, str: "triplet", bool: True, list: [0, 1], dict: {"key": 1}}
KINDS = {kind.__name__: kind for kind in EXAMPLES}


class ParameterError(ValueError):
    """A parameter that the notebook does not have, or a value of the wrong type."""


# ------------------------------------------------------------------ parameters, before any kernel


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: `name: kind = default  # help`."""

    name: str
    kind: type
    default: Any


def declared_parameters(notebook: NotebookNode, name: str = "notebook") -> dict[str, Parameter]:
    """The parameters in the cell tagged `parameters`; {} where there is no such cell.

    Raises ParameterError where a line is not `name: type = literal`.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if not cells:
        return {}
    try:
        lines = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise ParameterError(f"{name}: the parameters cell is no Python ({error.msg}).") from error
    found = [_declared(line, name) for line in lines if not isinstance(line, ast.Expr)]
    return {parameter.name: parameter for parameter in found}


def _declared(line: ast.stmt, notebook: str) -> Parameter:
    target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
    try:
        default = ast.literal_eval(line.value)  # type: ignore[attr-defined]
        annotation = getattr(line, "annotation", None)
        if annotation is None:
            kind = type(default)
        else:  # list[int] counts as list
            kind = KINDS[getattr(annotation, "value", annotation).id]
        if kind not in EXAMPLES:
            raise KeyError(kind)
        return Parameter(target.id, kind, default)  # type: ignore[union-attr]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ParameterError(
            f"{notebook}: line {line.lineno} of the parameters cell, '{ast.unparse(line)}', "
            f"should read 'name: type = plain value  # help' with a type of {', '.join(KINDS)}."
        ) from error


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
    usable = parameter.default not in (None, "", [], {})
    example = parameter.default if usable else EXAMPLES[parameter.kind]
    shown = yaml.safe_dump(example, default_flow_style=True, width=1000).splitlines()[0]
    return (
        f"{notebook}: parameter '{parameter.name}' takes {parameter.kind.__name__}, "
        f"for example {parameter.name}={shown}, and was given {value!r} ({type(value).__name__})."
    )


def parse_override(text: str) -> tuple[str, Any]:
    """Split `name=value` and read the value as params.yaml is read (`1e-4` is a number).

    Raises ParameterError where there is no name or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise ParameterError(f"-p takes name=value, for example -p loss=triplet, not '{text}'.")
    try:
        return name, params.load(value)
    except yaml.YAMLError as error:
        raise ParameterError(f"The value of -p {text} is no YAML; quote it.") from error
