"""The size of the house: source files, lines, import circles, files and functions that one task enters.

    python benchmarks/house.py                 # sizes, circles, and four tasks run with nano
    python benchmarks/house.py --tasks none    # sizes and circles only
    python benchmarks/house.py --root OTHER    # another checkout, with its own interpreter

Prints one JSON object. A file or function counts as entered when a call of it is seen (`sys.setprofile`, in
every thread and process of the command); modules' own bodies, comprehensions and lambdas do not count. The
body of a class runs while its module is imported: it counts in `files` and `functions`, and not in the
figures `without_class_bodies`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDERS = {"vidllava": "vidllava", "vidllava.cli": "cli", "vidllava.kernels": "kernels/ops"}
TASKS = ("ask", "finetune", "eval", "bench frames")


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its import name."""
    found: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that ``path`` imports, also inside functions and for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in known else node.module for one in whole}
    return {one for one in found if one in known and one != name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return groups


def sizes(root: Path) -> dict[str, Any]:
    """Files and lines outside tests."""
    files = sorted({path for path in modules(root).values()})
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    by_folder: dict[str, list[int]] = {}
    for path in files:
        parts = path.relative_to(root).parts
        folder = "/".join(parts[:2]) if parts[0] == "vidllava" and len(parts) > 2 else parts[0]
        entry = by_folder.setdefault(folder, [0, 0])
        entry[0] += 1
        entry[1] += len(path.read_text(encoding="utf-8").splitlines())
    return {
        "source_files": len(files),
        "lines": sum(lines),
        "median_lines": lines[len(lines) // 2],
        "files_under_40_lines": sum(count < 40 for count in lines),
        "by_folder": {name: {"files": one[0], "lines": one[1]} for name, one in sorted(by_folder.items())},
    }


RECORDER = """
import os, sys, threading
seen, folders = set(), tuple(os.environ["HOUSE_FOLDERS"].split(os.pathsep))
log = os.open(os.environ["HOUSE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def see(frame, event, _):
    code = frame.f_code
    if event == "call" and code not in seen:
        seen.add(code)
        if code.co_filename.startswith(folders) and code.co_name[0] != "<":
            kind = "function" if code.co_flags & 2 else "class"
            os.write(log, f"{kind} {code.co_filename}:{code.co_firstlineno}\\n".encode())
threading.setprofile(see)
sys.setprofile(see)
"""


def run_task(task: str, root: Path) -> dict[str, Any]:
    """The files and functions that one command enters, in its own process and in those that it starts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(RECORDER, encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder / "site"),
            "HOUSE_LOG": str(folder / "log"),
            "HOUSE_FOLDERS": os.pathsep.join(f"{root / one}/" for one in FOLDERS.values()),
            "VIDLLAVA_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, "-m", "vidllava.cli.main", *command(task, root, folder)]
        ended = subprocess.run(words, capture_output=True, text=True, cwd=root, env=environment, check=False)
        if ended.returncode:
            return {"error": ended.stderr[-300:], "exit_code": ended.returncode}
        entered = set((folder / "log").read_text(encoding="utf-8").splitlines())
    classes = {one for one in entered if one.startswith("class ")}
    files = {one.partition(" ")[2].rpartition(":")[0] for one in entered}
    called = {one.partition(" ")[2].rpartition(":")[0] for one in entered - classes}
    return {
        "files": len(files),
        "functions": len(entered),
        "files_without_class_bodies": len(called),
        "functions_without_class_bodies": len(entered - classes),
    }


def command(task: str, root: Path, folder: Path) -> list[str]:
    """One small command line of each task, on the shipped examples and the embedded model."""
    clip, root_of_media = "clip.mp4", str(root / "examples")
    if task == "ask":
        return ["ask", f"{root_of_media}/{clip}", "what happens", "--model", "nano"]
    if task == "finetune":
        rows = folder / "rows.jsonl"
        talk = [{"from": "human", "value": "<video>\nwhat happens?"}, {"from": "gpt", "value": "it moves"}]
        rows.write_text(
            json.dumps({"id": "1", "video": clip, "conversations": talk}) + "\n", encoding="utf-8"
        )
        out = ["--output-dir", str(folder / "run"), "--max-steps", "1", "--per-device-train-batch-size", "1"]
        return [
            "finetune",
            "--model",
            "nano",
            "--data",
            str(rows),
            "--media-root",
            root_of_media,
            *out,
            "--save-steps",
            "0",
        ]
    rows = folder / "questions.jsonl"
    question = {"id": "1", "video": clip, "question": "what happens?", "answer": "it moves"}
    rows.write_text(json.dumps(question) + "\n", encoding="utf-8")
    if task == "eval":
        out = ["--media-root", root_of_media, "-o", str(folder / "answers.jsonl")]
        return ["eval", "--model", "nano", "--data", str(rows), *out]
    out = ["--media-root", root_of_media, "--output-dir", str(folder / "sweep"), "--num-frames", "8"]
    return ["bench", "frames", "--model", "nano", "--data", str(rows), *out]


def measure(root: Path, tasks: tuple[str, ...]) -> dict[str, Any]:
    known = modules(root)
    graph = {name: imports(name, path, known) for name, path in known.items()}
    found: dict[str, Any] = {**sizes(root), "circles": circles(graph)}
    for task in tasks:
        found[task] = run_task(task, root)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated, or none")
    given = parser.parse_args()
    root = given.root.resolve()
    tasks = () if given.tasks == "none" else tuple(given.tasks.split(","))
    print(json.dumps(measure(root, tasks), indent=1))


if __name__ == "__main__":
    main()
