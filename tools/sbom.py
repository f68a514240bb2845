"""Write the bill of materials of what users install, in CycloneDX 1.6: `python -m tools.sbom`.

Names and versions come from the lock file `requirements/runtime.txt`, licences from the installed packages. The result
depends on nothing else, so it is reproducible.
"""

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from innerloop.io.files import write_text

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "runtime.txt"
BILL = ROOT / "requirements" / "sbom.cdx.json"
PINNED = re.compile(r"^([a-z0-9.-]+)==(\S+)(?: ; ([^\\]+?))? \\$", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
UNKNOWN = "not installed here"
KNOWN = {
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "3-Clause BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
}


def pins() -> list[dict[str, Any]]:
    """Every package in the lock file with its version, environment marker and file hashes."""
    text = LOCK.read_text()
    found = list(PINNED.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [
        {"name": m[1], "version": m[2], "marker": m[3], "hashes": HASH.findall(text[m.end() : end])}
        for m, end in zip(found, ends, strict=True)
    ]


def licence(name: str) -> str:
    """The licence that a package declares, in a short form."""
    try:
        known = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return UNKNOWN
    if told := known.get("License-Expression"):
        return told
    classified = [
        c.rsplit(" :: ", 1)[-1] for c in known.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    classified = [KNOWN.get(name, name) for name in classified if name != "OSI Approved"]
    plain = (known.get("License") or "").strip().splitlines()
    return (
        " OR ".join(classified) or KNOWN.get(plain[0], plain[0])[:60] if classified or plain else "not told"
    )


def component(pin: dict[str, Any]) -> dict[str, Any]:
    """One package as a CycloneDX component."""
    address = f"pkg:pypi/{pin['name']}@{pin['version']}"
    marker = [{"name": "installed where", "value": pin["marker"]}] if pin["marker"] else []
    return {
        "type": "library",
        "bom-ref": address,
        "name": pin["name"],
        "version": pin["version"],
        "purl": address,
        "licenses": [{"license": {"name": licence(pin["name"])}}],
        "properties": [
            *marker,
            {"name": "files with a hash in the lock file", "value": str(len(pin["hashes"]))},
        ],
    }


def bill() -> dict[str, Any]:
    """The whole bill."""
    own = {"type": "library", "name": "innerloop", "licenses": [{"license": {"id": "Apache-2.0"}}]}
    parts = [component(pin) for pin in pins()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": parts,
    }


def main() -> None:
    made = bill()
    write_text(BILL, json.dumps(made, indent=1) + "\n")
    for part in made["components"]:
        print(f"{part['name']:24}{part['version']:14}{part['licenses'][0]['license']['name']}")


if __name__ == "__main__":
    main()
