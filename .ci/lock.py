#!/usr/bin/env python3
"""Fails if the lock file holds two versions of a crate whose types cross the borders between crates."""

import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ONE_VERSION = re.compile(r"arrow|arrow-.*|parquet|object_store")

versions = defaultdict(set)
for package in tomllib.loads(Path("Cargo.lock").read_text())["package"]:
    if ONE_VERSION.fullmatch(package["name"]):
        versions[package["name"]].add(package["version"])
twice = {name: sorted(found) for name, found in versions.items() if len(found) > 1}
for name, found in twice.items():
    print(f"{name} is in Cargo.lock {len(found)} times: {', '.join(found)}", file=sys.stderr)
if twice or "parquet" not in versions:
    sys.exit(1)
print(", ".join(f"{name} {min(found)}" for name, found in versions.items() if not name.startswith("arrow-")))
