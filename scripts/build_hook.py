"""Puts the compiled kernel into a wheel, for whatever Python 3 of this kind of machine.

Run by hatchling. Without a compiler the wheel is for every machine and decodes the plain way; with
``WHEEL_PLATFORM``, a platform tag that ``scripts/wheel`` gives, that is an error.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNEL = "collector/decoder/kernel"


class KernelBuildHook(BuildHookInterface):
    """Builds outside of the source folder: what is compiled there is for the machine it stands on."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # scripts/setup builds it in place
        platform = os.environ.get("WHEEL_PLATFORM")
        build = _build_module(Path(self.root) / KERNEL / "build.py")
        self._folder = tempfile.TemporaryDirectory(prefix="kernel-")
        made = Path(self._folder.name) / build.LIBRARY.name
        try:
            build.build(made)
        except build.BuildError as error:
            self.app.display_info(error.output)
            if platform:
                raise
            self.app.display_warning(f"kernel: not built, so hits are decoded the plain, slower way: {error}")
            return
        build_data["force_include"][str(made)] = f"{KERNEL}/{made.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform or _this_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del build_data, artifact_path
        if version != "editable":
            self._folder.cleanup()


def _build_module(path: Path) -> ModuleType:
    """By its path: the collector itself needs more than a build has."""
    spec = importlib.util.spec_from_file_location("kernel_build", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _this_platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
