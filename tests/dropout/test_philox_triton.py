"""The Triton kernels give the bits of the oracle and do what the layer does, and they compile without a GPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

HERE = Path(__file__).parent
# Of the laws of keyed masks, those that say what the bits are and that they are independent.
LAWS = ["uncorrelated and 0.5", "bernoulli and 4-permuted", "neighbours", "recomputes", "versions", "higher"]


def run(*command: Any, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=HERE.parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_interpreted_kernels_keep_their_laws() -> None:
    """In a process of their own: whether Triton compiles or interprets is settled when it is imported."""
    files = (HERE / name for name in ("interpreted_kernels.py", "test_keys.py", "test_contexts.py"))
    chosen = f"interpreted or (triton and ({' or '.join(f'({law})' for law in LAWS)}))"
    options = ("-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen)
    output = run("-m", "pytest", *options, *files, TRITON_INTERPRET="1")
    assert "SKIPPED" not in output
    passed = [line for line in output.splitlines() if "PASSED" in line]
    for law in ("interpreted_kernels", *LAWS):
        assert any(all(word in line for word in law.split(" and ")) for line in passed), law


@pytest.mark.slow
def test_kernels_are_imported_on_cuda_only() -> None:
    code = (
        "import sys, torch; from dropout_lab.dropout import Dropout, mask_keys\n"
        "with mask_keys(1, 2, range(4)): Dropout()(torch.ones(4, 300))\n"
        "print(*(name for name in sys.modules if name.startswith('dropout_lab.dropout.philox')))"
    )
    assert run("-c", code).split() == ["dropout_lab.dropout.philox"]


KEY = {"seed": "i64", "layer": "i64", "step": "i32", "call": "i32"}
SIGNATURES: dict[str, dict[str, str]] = {
    "_write_words": {"out": "*i32", "starts": "*i64", "width": "i32", "parts": "i32", **KEY},
    "_long_rows": {
        **{
            "count": "i32",
            "parts": "i32",
            "edge": "i32",
            "rest": "i32",
            "start": "i64",
            "width": "i32",
            "scale": "i64",
        },
        **KEY,
    },
    "_short_rows": {"count": "i32", "keep": "i32", "start": "i64", "scale": "i64", **KEY},
}


def ptxas() -> Any:
    from triton import knobs

    try:
        return knobs.nvidia.ptxas
    except RuntimeError:  # what Triton raises where it finds none
        return None


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets here")
@pytest.mark.skipif(ptxas() is None, reason="this Triton has no ptxas")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        ("_write_words", "i32"),
        *((name, of) for name in ("_long_rows", "_short_rows") for of in ("fp32", "bf16", "fp64")),
    ],
)
def test_kernels_compile_without_a_gpu(
    kernel: str, dtype: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dropout_lab.dropout import philox_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types = {"out": f"*{dtype}", "x": f"*{dtype}", **SIGNATURES[kernel]}
    function = getattr(philox_triton, kernel)
    signature = {name: types.get(name, "constexpr") for name in function.arg_names}
    source = ASTSource(function, signature, {"blocks": philox_triton._BLOCKS})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert {"ptx", "cubin"} <= set(compiled.asm)
    assert "mul.hi.u64" in compiled.asm["ptx"]  # the upper half of a product is one instruction
    assert any(tmp_path.iterdir())
