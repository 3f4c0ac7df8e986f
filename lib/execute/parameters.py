"""The parameters cell of a notebook: what it declares, and whether given values fit."""

import ast
from typing import Any

from nbformat import NotebookNode
from ruamel.yaml import YAMLError

from lib.core import params
from lib.core.parameters import EXAMPLES, KINDS, Parameter, ParameterError

# ------------------------------------------------------------------ parameters, before any kernel


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


def parse_override(text: str) -> tuple[str, Any]:
    """Split `name=value` and read the value as params.yaml is read (`1e-4` is a number).

    Raises ParameterError where there is no name or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise ParameterError(f"-p takes name=value, for example -p loss=triplet, not '{text}'.")
    try:
        return name, params.load(value)
    except YAMLError as error:
        raise ParameterError(f"The value of -p {text} is no YAML; quote it.") from error
