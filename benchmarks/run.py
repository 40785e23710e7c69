"""Run the suites, write `results/*.json` and the tables of README.md.

python -m benchmarks.run                      everything but what needs tens of GB
python -m benchmarks.run --suite smoke        a minute, to see that it works; writes nothing by default
python -m benchmarks.run -k "vgg16 or mlp"    some of it (as pytest -k); writes nothing by default
python -m benchmarks.run --suite scaling      time against samples and width, and the plot of it (5 minutes)
python -m benchmarks.run --base v0.1.0        this revision against another, by turns; writes only with --out
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import base, op_claims, plots, readme
from benchmarks.claims import CLAIMS, describe, prediction
from twophase_fast.storage.provenance import collect

HERE = Path(__file__).parent
FILES = {"entk": "test_entk.py", "ops": "test_ops.py"}
BASE_TESTS = {None: "", "entk": "::test_kernel", "ops": "::test_op"}


def main(arguments: list[str] | None = None) -> int:
    """Run; returns pytest's exit status, or 2 where the base cannot be had."""
    options = _options(arguments)
    if options.base:
        try:
            return _against_base(options)
        except base.BaseError as error:
            print(f"--base {options.base}: {error}", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        status = _pytest(options, rows)
        if not rows.exists():
            return status
        results = _results(json.loads(rows.read_text()), options.suite)
    _report(results)
    whole = options.suite != "smoke" and options.k is None and options.only is None
    if whole or options.out:
        _save(results, Path(options.out) if options.out else _default_path(results))
        _publish(results, options)
    return status


def _against_base(options: argparse.Namespace) -> int:
    """Time this revision and the base by turns."""
    with base.checkout(options.base) as root, tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        status = _pytest(options, rows, root)
        compared = json.loads(rows.read_text())["base"] if rows.exists() else []
    if not compared:
        return status
    revision = {"asked": options.base, "revision": base.full_name(options.base)}
    print("\n" + readme.base_table(compared, options.base) + "\n")
    if options.out:
        threads = torch.get_num_threads()
        results = {"suite": options.suite, "environment": collect(), "threads": threads, "base": revision}
        _save({**results, "rows": compared}, Path(options.out))
    return status


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="default", choices=("default", "large", "smoke", "scaling"))
    parser.add_argument("--seconds", default=3.0, type=float, help="time for repeats of one measurement")
    parser.add_argument(
        "-k", default=None, help="only tests that match, as in pytest; nothing is written unless --out is given"
    )
    parser.add_argument("--only", default=None, choices=sorted(FILES), help="only kernels, or only ops")
    parser.add_argument("--base", default=None, metavar="REV", help="compare with this revision of the repository")
    parser.add_argument("--out", default=None, help="where to write the results (default: results/DATE-MACHINE.json)")
    parser.add_argument("--readme", default=str(readme.README), help="file whose tables are replaced")
    parser.add_argument("--plot", default=str(plots.PLOT), help="where the plot of --suite scaling goes")
    return parser.parse_args(arguments)


def _pytest(options: argparse.Namespace, rows: Path, base_root: Path | None = None) -> int:
    files = [str(HERE / file) for name, file in FILES.items() if options.only in (None, name)]
    if options.suite == "scaling":
        files = [str(HERE / "test_scaling.py")]
    if base_root is not None:
        files = [f"{HERE / 'test_base.py'}{BASE_TESTS[options.only]}", f"--base-root={base_root}"]
    command = [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider", "-q", f"--rows={rows}"]
    command += [f"--suite={options.suite}", f"--seconds={options.seconds}", "--benchmark-columns=min,median,rounds"]
    command += ["-k", options.k] if options.k else []
    return subprocess.run(command, cwd=HERE.parent).returncode


def _results(rows: dict[str, Any], suite: str) -> dict[str, Any]:
    results = {"suite": suite, "environment": collect(), "threads": torch.get_num_threads(), **rows}
    results["claims"] = [] if suite == "scaling" else [claim.check(rows["entk"]) for claim in CLAIMS]
    results["op_claims"] = [claim.check(rows["ops"]) for claim in op_claims.OP_CLAIMS] if rows["ops"] else []
    return results


def _default_path(results: dict[str, Any]) -> Path:
    hardware = results["environment"]["hardware"]
    machine = re.sub(r"[^a-z0-9]+", "-", f"{hardware['processor']} {results['threads']} threads".lower()).strip("-")
    return HERE / "results" / f"{results['environment']['time'][:10]}-{machine}-{results['suite']}.json"


def _report(results: dict[str, Any]) -> None:
    print("\n" + readme.tables(results) + "\n")
    ran = {row["workload"] for row in results["entk"]}
    for claim in results["claims"]:
        if claim["workload"] in ran:
            print(describe(claim))
    labels = set(map(op_claims.label, results["ops"]))
    for claim in results["op_claims"]:
        if claim["label"] in labels:
            print(op_claims.describe(claim))
    for line in filter(None, map(prediction, results["entk"])):
        print(line)


def _save(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


def _publish(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Put the tables, and the plot of a scaling run, where they belong."""
    if results["scaling"]:
        plots.scaling_plot(results["scaling"], Path(options.plot))
        print(f"plotted in {options.plot}")
    try:
        readme.update(Path(options.readme), readme.tables(results), "scaling" if results["scaling"] else "bench")
    except (OSError, ValueError) as error:
        print(f"the tables were not put into {options.readme}: {error}")


if __name__ == "__main__":
    sys.exit(main())
