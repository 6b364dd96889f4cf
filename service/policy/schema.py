"""JSON Schema of tenant files, made from the types that check them, for editors to complete and check by.

One thing is wider than the check: any value of a session may be text with `${…}`, whose type is known only later.
"""

from typing import Any, Final

from service.contract import WISH
from service.policy.model import TenantFile

COMPUTED: Final = {"type": "string", "pattern": r"\$\{", "description": "An expression: ${claims.plan}"}
SCHEMA_ID: Final = "https://json-schema.org/draft/2020-12/schema"


def tenant_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of a file in `tenants/` or `templates/`."""
    schema = TenantFile.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs")
    session = WISH.json_schema(ref_template="#/$defs/Session{model}")
    for name, shape in session.pop("$defs").items():
        definitions[f"Session{name}"] = _with_expressions(shape)
    session = _with_expressions(session)
    session["properties"].pop("user")  # mapped by `user:`, not set inside a session
    definitions["Session"] = {"title": "Session", **session}
    for shape in [schema, *definitions.values()]:
        properties = shape.get("properties", {})
        if "session" in properties:
            properties["session"] = {"$ref": "#/$defs/Session"}
    schema["properties"]["extends"] = {"type": "string", "description": "A file in templates/, without its ending."}
    # What is missing here may stand in a template; and a template is no tenant.
    schema.pop("required")
    return {"$schema": SCHEMA_ID, **schema, "title": "chatkit-mint tenant", "$defs": definitions}


def _with_expressions(shape: dict[str, Any]) -> dict[str, Any]:
    """Let every value of an object be an expression, and let `anchor` be left out: it has one value only."""
    properties = {
        name: value if "$ref" in value else {"anyOf": [value, COMPUTED]}
        for name, value in shape.get("properties", {}).items()
    }
    if "state_variables" in properties:
        properties["state_variables"] = shape["properties"]["state_variables"]
    kept = {name: value for name, value in shape.items() if name != "required"}
    return {**kept, "properties": properties}
