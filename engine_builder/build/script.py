"""Script: a step as a shell script, to run it again by hand, with its folders and environment in it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from engine_builder.build.placeholders import quoted
from engine_builder.steps.step import Step


def script(step: Step, key: str, folders: Mapping[str, str]) -> str:
    """A POSIX shell script that ends with an error whenever the step would.

    `folders`: of the steps it needs, by name.
    """
    lines = [
        "#!/bin/sh",
        f"# Runs step {step.name!r} again as it was run; what it leaves comes under $1.",
        f"# Key {key}",
        *(f"# Input {name}: {_one_line(value)}" for name, value in sorted(step.inputs.items())),
        *(f"# Reads {name}: {_one_line(path)}" for name, path in sorted(folders.items())),
        "set -eu",
        f'output=${{1:-"$PWD/{step.name}-output"}}',
        '[ ! -e "$output" ] || { echo "error: $output exists; name a new folder" >&2; exit 2; }',
        *(
            f"[ -d {shlex.quote(path)} ] || {_fail(f'{path} is gone: build again')}"
            for path in folders.values()
        ),
        'mkdir -p "$output"',
        'output=$(cd "$output" && pwd)',
    ]
    for path, text in step.files.items():
        target = '"$output"/' + shlex.quote(path)
        lines += [f'mkdir -p "$(dirname {target})"', f"printf %s {quoted(text, folders)} > {target}"]
    for name, value in step.environment.items():
        lines.append(f"export {name}={quoted(value, folders)}")
    lines += ['cd "$output"', " \\\n    ".join(quoted(word, folders) for word in step.argv)]
    for pattern in step.expects:
        lines += [
            f'set -- "$output"/{_pattern(pattern)}',
            f'[ -e "$1" ] || {_fail(f"{step.name} has left no {pattern}")}',
        ]
    lines.append('echo "left in $output"')
    return "\n".join(lines) + "\n"


def _fail(message: str) -> str:
    return f"{{ echo {shlex.quote(f'error: {message}')} >&2; exit 1; }}"


def _pattern(pattern: str) -> str:
    """Quoted, but for what makes it a pattern."""
    return "".join(char if char in "*?[]" else shlex.quote(char) for char in pattern)


def _one_line(text: str) -> str:
    return " ".join(text.split())
