"""Reads `cargo metadata --no-deps` on stdin and checks that our crates depend on each other as ARCHITECTURE.md draws it."""

import json
import sys

ALLOWED = {
    "tamiz-schemas": set(),
    "tamiz-model": set(),
    "tamiz-udfs": {"tamiz-model"},
    "tamiz": {"tamiz-schemas", "tamiz-model", "tamiz-udfs"},
    "tamiz-benchmarks": {"tamiz-schemas", "tamiz-model", "tamiz-udfs", "tamiz"},
}


def main():
    wrong = []
    for package in json.load(sys.stdin)["packages"]:
        name = package["name"]
        if name not in ALLOWED:
            wrong.append(f"crate `{name}` has no place among the crates: give it one in scripts/check_dag.py")
            continue
        ours = {dependency["name"] for dependency in package["dependencies"]} & ALLOWED.keys()
        wrong += [f"`{name}` must not depend on `{other}`" for other in sorted(ours - ALLOWED[name])]
    for line in wrong:
        print(f"check: {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
