"""The folder ``kernels/`` must never stand in for the distribution of that name, which transformers imports.

A package ``kernels`` at the repository root would shadow it for ``python -m pytest``, ``python -c`` and
notebooks, and importing the OneVision class could fail. The folder has no ``__init__.py``, so a real package
further down ``sys.path`` wins. A stub plays the distribution here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUB_VERSION = "0.18.2"  # one that transformers 5.23 accepts, so that it really imports from it


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A folder for ``sys.path`` with a distribution ``kernels``."""
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text("STUB = True\n", encoding="utf-8")
    info = tmp_path / f"kernels-{STUB_VERSION}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: kernels\nVersion: {STUB_VERSION}\n", encoding="utf-8"
    )
    return tmp_path


def run_at_root(code: str, extra_path: Path, root: Path = ROOT) -> str:
    """Run ``code`` as ``python -c`` at ``root``, which is then first on ``sys.path``; the stub comes last."""
    program = f"import sys; assert sys.path[0] == ''; sys.path.append({str(extra_path)!r}); {code}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kernels_is_the_distribution_not_our_folder(stub: Path):
    assert run_at_root("import kernels; print(kernels.STUB)", stub) == "True"


def test_both_kernels_can_be_imported_together(stub: Path):
    code = "import kernels, vidllava.kernels; print(kernels.STUB, vidllava.kernels.__name__)"
    assert run_at_root(code, stub) == "True vidllava.kernels"


def test_transformers_sees_the_distribution(stub: Path):
    code = "from transformers.utils.import_utils import _is_package_available as seen; "
    code += "print(seen('kernels', return_version=True))"
    assert run_at_root(code, stub) == str((True, STUB_VERSION))


def test_transformers_sees_no_kernels_where_none_is_installed(tmp_path: Path):
    code = "from transformers.utils import is_kernels_available; print(is_kernels_available())"
    assert run_at_root(code, tmp_path) == "False"


def test_a_package_named_kernels_at_the_root_would_shadow_it(stub: Path, tmp_path: Path):
    """The fault that this file guards against is real: the same check fails in a folder laid out that way."""
    wrong = tmp_path / "checkout"
    (wrong / "kernels").mkdir(parents=True)
    (wrong / "kernels" / "__init__.py").write_text("STUB = False\n", encoding="utf-8")
    assert run_at_root("import kernels; print(kernels.STUB)", stub, root=wrong) == "False"
    assert not (ROOT / "kernels" / "__init__.py").exists()
