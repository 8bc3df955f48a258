"""Import OpenVINO without its converter, which reports each import over the network.

``openvino/__init__.py`` imports ``openvino.tools.ovc`` for ``convert_model`` if it can, and that module sends a
telemetry event when it is imported. crossrank builds its graphs itself and doesn't need it, so the module is hidden
during the import. Nothing is sent, and the import takes half the time. Other code in the same process can still import
``ovc`` afterwards; OpenVINO's own telemetry setting applies then.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_CONVERTER = "openvino.tools.ovc"


def _import_quietly() -> ModuleType:
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # what makes `import` raise ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        sys.modules.pop(_CONVERTER, None)


ov: Any = _import_quietly()
opset: Any = importlib.import_module("openvino.opset13")
