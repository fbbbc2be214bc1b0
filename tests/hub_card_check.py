"""What the Hub refuses in a model card's metadata, by its documented specification (hub-docs, modelcard.md)."""

from __future__ import annotations

import re
from typing import Any

import yaml

_RELATIONS = {"finetune", "adapter", "merge", "quantized"}
_PIPELINES = {"image-classification", "text-classification"}
_TEXTS = ("library_name", "pipeline_tag", "license", "base_model_relation")
_LISTS = ("datasets", "metrics", "tags")
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def errors_of_card(content: str) -> list[str]:
    """What is wrong with the metadata of a README.md; nothing where it is right."""
    header = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
    if header is None:
        return []
    try:
        data = yaml.safe_load(header.group(1))
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(data, dict):
        return ["the metadata must be keys and values"]
    errors = [f'"{name}" must be a string' for name in _TEXTS if not isinstance(data.get(name, ""), str)]
    for name in _LISTS:
        value = data.get(name, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            errors.append(f'"{name}" must be an array of strings')
    bases = data.get("base_model", [])
    errors += [
        f'"base_model" with value "{each}" is not valid. Use a model id from https://hf.co/models.'
        for each in ([bases] if isinstance(bases, str) else bases)
        if not isinstance(each, str) or not _ID.fullmatch(each)
    ]
    if data.get("base_model_relation", "finetune") not in _RELATIONS:
        errors.append('"base_model_relation" must be one of [adapter, merge, quantized, finetune]')
    if data.get("pipeline_tag", "image-classification") not in _PIPELINES:
        errors.append('"pipeline_tag" is not a known task')
    return errors + _errors_of_results(data.get("model-index", []))


def _errors_of_results(index: Any) -> list[str]:
    errors: list[str] = []
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    for place, model in enumerate(index):
        if not isinstance(model.get("name"), str) or not model.get("results"):
            errors.append(f'"model-index[{place}]" needs a name and results')
        for result in model.get("results", []):
            for key in ("task.type", "dataset.type", "dataset.name"):
                section, name = key.split(".")
                if not isinstance(result.get(section, {}).get(name), str):
                    errors.append(f'"model-index[{place}].results.{key}" is required')
            metrics = result.get("metrics", []) or [{}]
            if any(not isinstance(each.get("type"), str) or each.get("value") is None for each in metrics):
                errors.append(f'"model-index[{place}].results.metrics" needs type and value')
    return errors
