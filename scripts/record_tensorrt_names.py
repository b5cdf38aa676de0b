#!/usr/bin/env python3
"""Write down which names TensorRT's and CUDA's Python modules have, for test/tensorrt_double.py.

    python3 scripts/record_tensorrt_names.py tensorrt test/data/tensorrt_names.json
    python3 scripts/record_tensorrt_names.py cuda.bindings.runtime test/data/cuda_names.json

Run it by a Python that has the module; what the file says of other versions stays. No GPU is needed. Of
TensorRT 10 and 11 the bindings' wheels alone suffice (module tensorrt_bindings), if the dynamic linker finds
libraries of the names that they want: empty ones with these functions will do (nm -D --undefined-only).
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

#: Of TensorRT: what hand_mesh_ros uses, and what its objects come from.
CLASSES = (
    'ActivationType',
    'Builder',
    'BuilderFlag',
    'DataType',
    'IBuilderConfig',
    'ICudaEngine',
    'IExecutionContext',
    'IHostMemory',
    'ILayer',
    'ILogger',
    'INetworkDefinition',
    'IOptimizationProfile',
    'IProgressMonitor',
    'ITensor',
    'ITimingCache',
    'LayerType',
    'MemoryPoolType',
    'NetworkDefinitionCreationFlag',
    'OnnxParser',
    'ParserError',
    'Runtime',
    'TacticSource',
    'TensorIOMode',
)

#: Of the CUDA runtime, besides its functions: the enumerations that are used.
ENUMERATIONS = ('cudaError_t', 'cudaMemcpyKind', 'cudaStreamCaptureMode')


def tensorrt_names(module: Any) -> dict[str, Any]:
    """All names of the module; of the classes above, those of their members."""
    classes: dict[str, Any] = {}
    for name in CLASSES:
        kind = getattr(module, name, None)
        if kind is None:
            continue
        members = getattr(kind, '__members__', None)
        if members is not None:
            classes[name] = {member: int(value) for member, value in sorted(members.items())}
        else:
            own = {key: value for base in reversed(kind.__mro__[:-2]) for key, value in vars(base).items()}
            classes[name] = {
                key: _parameters(key, value) for key, value in sorted(own.items()) if not key.startswith('_')
            }
    return {'names': [name for name in dir(module) if not name.startswith('_')], 'classes': classes}


def _parameters(name: str, member: Any) -> list[list[str]] | None:
    """Names of a method's parameters, for each of its signatures; None of an attribute."""
    text = getattr(member, '__doc__', None) or ''
    signatures = re.findall(rf'^(?:\d+\. )?{name}\(self: (.*)\) -> ', text, re.MULTILINE)
    if isinstance(member, property) or not signatures:
        return None
    return [re.findall(r', (\w+):', signature) for signature in signatures]


def cuda_names(module: ModuleType) -> dict[str, Any]:
    """Functions of the runtime with the names of their parameters; members of the enumerations; constants."""
    functions = {}
    for name in dir(module):
        text = (getattr(getattr(module, name), '__doc__', None) or '').split('\n')[0]
        found = re.fullmatch(rf'{name}\((.*)\)', text)
        if name.startswith('cuda') and found:
            parameters = [part.split(':')[0].split()[-1] for part in found[1].split(',') if part.strip()]
            functions[name] = parameters
    return {
        'functions': functions,
        'enumerations': {
            name: {key: int(value) for key, value in getattr(module, name).__members__.items()}
            for name in ENUMERATIONS
        },
        'constants': {
            name: value
            for name in ('cudaStreamNonBlocking', 'cudaHostAllocDefault')
            if isinstance(value := getattr(module, name, None), int)
        },
    }


def main() -> None:
    """Add one version to the file."""
    name, path = sys.argv[1], Path(sys.argv[2])
    module = importlib.import_module(name)
    if name.startswith('cuda'):
        from importlib.metadata import version

        key, told = f'{name} {version("cuda-python")}', cuda_names(module)
    else:
        key, told = module.__version__, tensorrt_names(module)
    known = json.loads(path.read_text()) if path.is_file() else {}
    text = json.dumps({**known, key: told}, indent=1, sort_keys=True)
    # One line for each list: the file is read by people, too.
    text = re.sub(r'\[[^\[\]{}]*\]', lambda found: re.sub(r'\s+', ' ', found[0]), text)
    path.write_text(text + '\n')


if __name__ == '__main__':
    main()
