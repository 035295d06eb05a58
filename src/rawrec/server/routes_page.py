"""The routes as a page that needs no script and nothing from elsewhere: what each takes, answers, and an example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment

PAGE = Path(__file__).with_name("routes.html")


def page_of(schema: Mapping[str, Any]) -> str:
    """The page of an OpenAPI schema."""
    records = schema.get("components", {}).get("schemas", {})
    routes = []
    for path, verbs in schema["paths"].items():
        for verb, route in verbs.items():
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            record = records.get(str(body.get("$ref", "")).rpartition("/")[2], {})
            routes.append(
                {
                    "verb": verb.upper(),
                    "path": path,
                    "text": " ".join(route.get("description", "").split()),
                    "fields": [_field(name, field, record) for name, field in record.get("properties", {}).items()],
                    "example": _example(verb, path, record),
                }
            )
    page = Environment(autoescape=True, trim_blocks=True).from_string(PAGE.read_text(encoding="utf-8"))
    return page.render(title=schema["info"]["title"], about=schema["info"].get("description", ""), routes=routes)


def _field(name: str, field: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    kinds = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    said = sorted({_kind(one) for one in kinds})
    needed = "needed. " if name in record.get("required", ()) else ""
    return {"name": name, "kind": " or ".join(said), "text": needed + field.get("description", "")}


def _kind(one: Mapping[str, Any]) -> str:
    if "enum" in one:
        return ", ".join(map(str, one["enum"]))
    if one.get("type") == "array":
        return "list"
    return str(one.get("type", "object"))


def _example(verb: str, path: str, record: Mapping[str, Any]) -> str:
    """A command that asks it, with the examples of its fields."""
    if verb != "post" or not record:
        return ""
    given = {}
    for name, field in record.get("properties", {}).items():
        example = field.get("examples") or next(
            (one["examples"] for one in field.get("anyOf", []) if "examples" in one), None
        )
        if example and not (name == "history" and "user" in given):
            given[name] = example[0]
        elif name in record.get("required", ()):
            given[name] = ["p0001"] if field.get("type") == "array" else "red striped mug"
    return f"curl http://127.0.0.1:8000{path} -H 'content-type: application/json' \\\n  -d '{json.dumps(given)}'"
