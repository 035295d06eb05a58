"""YAML as people write it by hand: a key that is given twice is refused, where PyYAML takes the last one."""

from __future__ import annotations

from typing import Any

import yaml

from rawrec.reading import bounded

MERGE = "tag:yaml.org,2002:merge"


class GivenTwice(yaml.YAMLError):
    """A mapping with the same key twice; the message names both values."""


def load(text: str) -> Any:
    """The plain values of a text. Raises yaml.YAMLError, ValueError or RecursionError for what is not valid."""
    return bounded(yaml.load(text, _Loader))


class _Loader(yaml.SafeLoader):  # plain values alone: nothing of a text is executed
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, yaml.Node] = {}
        for key_node, value_node in node.value if isinstance(node, yaml.MappingNode) else []:
            if key_node.tag == MERGE or not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node)
            if key in seen:
                values = " and ".join(map(_written, (seen[key], value_node)))
                raise GivenTwice(f"{key} is given twice: {values} (line {key_node.start_mark.line + 1})")
            seen[key] = value_node
        return super().construct_mapping(node, deep)


def _written(node: yaml.Node) -> str:
    """A value as it stands in the text, at most 60 characters."""
    text = " ".join(yaml.serialize(node, width=10**6).removesuffix("...\n").split())
    return text if len(text) <= 60 else text[:59] + "…"
