"""Remove the nulls with which a table fills mappings, so that its rows have the same tokens as in JSON lines.

In Arrow and parquet, every mapping of a column has the keys of those in all rows. The tools and calls of one row thus
get the parameters and arguments of all others, with null. A null that a row means looks the same. It is kept if the
JSON schema of the tool shows that it is meant: a `default` of a parameter that is optional and may be null, and an
argument that the tool requires. The other nulls are removed, with a notice for those that the row may have meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith import Row
from tunesmith.files.row import without_padding

_DEFAULTS = "tools: null as the default of a parameter is taken for missing, as in any table with structs"
_ARGUMENTS = "tool calls: null as an argument is taken for missing, as in any table with structs"


def unpadded_tool(row: Row, tool: Mapping[str, Any]) -> Any:
    """Return a tool's JSON schema without the nulls of a table."""
    return _schema(row, tool, optional=True)


def _schema(row: Row, value: Any, optional: bool) -> Any:
    """Return a part of a schema without the nulls of a table. optional: of a parameter, that it may be left out."""
    if isinstance(value, list):
        return [_schema(row, item, optional) for item in value]
    if not isinstance(value, Mapping):
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            if key in ("default", "const"):
                if optional and _may_be_null(value):
                    result[key] = None
                else:
                    row.notice(_DEFAULTS)
        elif key in ("properties", "$defs") and isinstance(item, Mapping):
            needed = value.get("required") or ()
            result[key] = {
                name: _schema(row, part, name not in needed) for name, part in item.items() if part is not None
            }
        else:
            result[key] = _schema(row, item, optional)
    return result


def _may_be_null(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type")
    if schema.get("nullable") is True or kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return True
    options = schema.get("anyOf") or schema.get("oneOf") or ()
    return any(isinstance(option, Mapping) and option.get("type") == "null" for option in options)


def unpadded_message(row: Row, message: dict[str, Any], tools: Any) -> dict[str, Any]:
    """Return a message without the nulls of a table. tools: the value of the row's column with schemas."""
    calls = message.get("tool_calls")
    result: dict[str, Any] = without_padding({key: item for key, item in message.items() if key != "tool_calls"})
    if not isinstance(calls, list):
        return result if calls is None else {**result, "tool_calls": calls}
    return {**result, "tool_calls": [_call(row, call, tools) for call in calls]}


def _call(row: Row, call: Any, tools: Any) -> Any:
    if not isinstance(call, Mapping):
        return call
    call = {key: item for key, item in call.items() if item is not None}
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), Mapping):
        return call
    parameters = _parameters(tools, function.get("name"))
    known, required = None, ()
    if parameters is not None:
        known, required = parameters.get("properties") or {}, parameters.get("required") or ()
    arguments: dict[str, Any] = {}
    for name, value in function["arguments"].items():
        if value is not None:
            arguments[name] = without_padding(value)
        elif name in required:
            arguments[name] = None
        if value is None and (known is None or known.get(name) is not None):
            row.notice(_ARGUMENTS)
    function = {key: item for key, item in function.items() if item is not None} | {"arguments": arguments}
    return {**call, "function": function} if "function" in call else function


def _parameters(tools: Any, name: Any) -> Mapping[str, Any] | None:
    """Return the schema of a tool's parameters, or None if the row does not have it as a mapping."""
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters")
            return parameters if isinstance(parameters, Mapping) else None
    return None
