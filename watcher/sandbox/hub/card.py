"""The metadata of a model card, validated like the Hub's validate-yaml does, as far as that is known.

Checked are the YAML, `license` against the Hub's list, and the types of the fields that our cards use.
"""

import re
from typing import Any

import yaml

_BLOCK = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")

LICENSES = re.findall(
    r"\S+",
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
    c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
    ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
    lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3
    llama4 grok2-community gemma unknown other
    """,
)
"""The licenses that the Hub's refusal listed in May 2026."""

_TEXTS = ("library_name", "pipeline_tag", "license_name", "license_link", "instance_prompt")
_LISTS = ("tags", "datasets", "base_model", "language", "metrics")


def validate(card: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings about a card."""
    block = _BLOCK.match(card)
    if block is None or not block[2].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        fields = yaml.safe_load(block[2])
    except yaml.YAMLError as error:
        return [_where(error)], []
    if not isinstance(fields, dict):
        return ["metadata must be an object"], []
    errors = []
    licenses = fields.get("license")
    for one in licenses if isinstance(licenses, list) else [licenses]:
        if one is not None and one not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(LICENSES)}, array]')
            break
    errors += [
        f'"{name}" must be a string'
        for name in _TEXTS
        if name in fields and not isinstance(fields[name], str)
    ]
    if not isinstance(fields.get("model-index", []), list):
        errors.append('"model-index" must be an array')
    for name in _LISTS:
        value = fields.get(name, [])
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str):
                errors.append(f'"{name}" must be a string or an array of strings')
                break
    return errors, []


def metadata(card: str) -> dict[str, Any]:
    """Return the fields of a card; none if they cannot be parsed."""
    block = _BLOCK.match(card)
    try:
        fields = yaml.safe_load(block[2]) if block else None
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def body(card: str) -> str:
    """Return what follows the fields of a card."""
    return _BLOCK.sub("", card)


def _where(error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return str(error)
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else ""
    return f"{problem} ({mark.line + 1}:{mark.column + 1})"
