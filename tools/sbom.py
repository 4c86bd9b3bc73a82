#!/usr/bin/env python3
"""Prints what a wheel contains that others wrote, as a CycloneDX bill of materials.

    tools/sbom.py

Versions are those installed where the wheel is built: Debian's packages, and nanobind.
"""

import importlib.metadata
import json
import platform
import subprocess

# Name, Debian package that it is built from, licence.
LIBRARIES = (
    ("fmt", "libfmt-dev", "MIT"),
    ("simdjson", "libsimdjson-dev", "Apache-2.0"),
    ("liburing", "liburing-dev", "MIT"),
    ("libsodium", "libsodium-dev", "ISC"),
    ("openssl", "libssl-dev", "Apache-2.0"),
    ("libstdc++", "libstdc++6", "GPL-3.0-or-later WITH GCC-exception-3.1"),
)


def debian_version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f", "${Version}\n", package]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def component(name: str, version: str, licence: str, purl: str) -> dict[str, object]:
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"expression": licence}],
    }


def bill() -> dict[str, object]:
    project = importlib.metadata.metadata("inrush")
    components = []
    for name, package, licence in LIBRARIES:
        version = debian_version(package)
        purl = f"pkg:deb/debian/{package}@{version}?arch={platform.machine()}"
        components.append(component(name, version, licence, purl))
    nanobind = importlib.metadata.version("nanobind")
    components.append(
        component("nanobind", nanobind, "BSD-3-Clause", f"pkg:pypi/nanobind@{nanobind}")
    )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "name": project["Name"],
                "version": project["Version"],
                "purl": f"pkg:pypi/inrush@{project['Version']}",
                "licenses": [{"expression": project["License-Expression"]}],
            }
        },
        "components": components,
    }


if __name__ == "__main__":
    print(json.dumps(bill(), indent=2))
