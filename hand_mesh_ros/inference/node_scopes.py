"""Names of nodes: the module that each computes for, a slash, and what it does there.

``network.decoder.norm/LayerNormalization_0`` is of the module ``network.decoder.norm``; ``/Concat_12`` is of
no module of the network, but of functions that the part calls.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx

#: Where PyTorch's exporter writes the modules that a node is in, outermost first, and last what it does.
_SCOPES = 'pkg.torch.onnx.name_scopes'


def name_by_scope(model: onnx.ModelProto) -> None:
    """Name all nodes of a graph, in place, as PyTorch's exporter wrote it."""
    scopes = {name: _scope_of(node) for node in model.graph.node for name in node.output}
    consumers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).extend(node.output[:1])
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        scope = scopes[node.output[0]]
        if scope is None:  # made by the optimiser, of nodes that nobody remembers
            around = [
                *node.input[:1],
                *(name for output in node.output for name in consumers.get(output, ())),
            ]
            scope = _common([known for name in around if (known := scopes.get(name)) is not None])
            scopes |= dict.fromkeys(node.output, scope)
        node.name = f'{scope}/{node.op_type}_{taken[scope]}'
        taken[scope] += 1


def scope_of(name: str) -> str:
    """The module of a node of that name; empty if none."""
    return name.rpartition('/')[0]


def _scope_of(node: onnx.NodeProto) -> str | None:
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            modules = ast.literal_eval(entry.value)[:-1]
            return modules[-1] if modules and not modules[-1].startswith('_empty') else ''
    return None


def _common(scopes: list[str]) -> str:
    """The innermost module that all of these are in."""
    common = []
    for parts in zip(*(scope.split('.') for scope in scopes), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return '.'.join(common)
