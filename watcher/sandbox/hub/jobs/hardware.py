"""The machines that a job can ask for, with their prices, as the Hub's documentation listed them in 2026."""

import re
from typing import Any

_TABLE = """
cpu-basic     | CPU Basic           | 2  | 16 GB  | 50 GB   |                 | 167
cpu-upgrade   | CPU Upgrade         | 8  | 32 GB  | 50 GB   |                 | 500
t4-small      | Nvidia T4 - small   | 4  | 15 GB  | 50 GB   | T4 16 GB        | 6667
a10g-small    | Nvidia A10G - small | 4  | 15 GB  | 110 GB  | A10G 24 GB      | 16667
a10g-large    | Nvidia A10G - large | 12 | 46 GB  | 200 GB  | A10G 24 GB      | 25000
l4x1          | 1x Nvidia L4        | 8  | 30 GB  | 400 GB  | L4 24 GB        | 13333
l40sx1        | 1x Nvidia L40S      | 8  | 62 GB  | 380 GB  | L40S 48 GB      | 30000
a100-large    | Nvidia A100 - large | 12 | 142 GB | 1000 GB | A100 80 GB      | 41667
rtx-pro-6000  | Nvidia RTX PRO 6000 | 23 | 256 GB | 475 GB  | RTX PRO 6000 96 GB | 45833
h200          | Nvidia H200         | 23 | 256 GB | 3000 GB | H200 141 GB     | 83333
"""
"""Name, title, cores, memory, disk, accelerator with its memory, and micro-dollars a minute."""


def _machine(line: str) -> dict[str, Any]:
    name, title, cores, memory, disk, accelerator, price = (one.strip() for one in line.split("|"))
    found = re.fullmatch(r"(.+) (\d+ GB)", accelerator)
    return {
        "name": name,
        "prettyName": title,
        "cpu": f"{cores} vCPU",
        "ram": memory,
        "ephemeralStorage": disk,
        "accelerator": found
        and {
            "type": "gpu",
            "model": found[1],
            "quantity": "1",
            "vram": found[2],
            "manufacturer": "Nvidia",
        },
        "unitCostMicroUSD": int(price),
        "unitCostUSD": int(price) / 1_000_000,
        "unitLabel": "minute",
    }


HARDWARE = [_machine(line) for line in _TABLE.strip().splitlines()]
FLAVORS = {machine["name"]: machine for machine in HARDWARE}
