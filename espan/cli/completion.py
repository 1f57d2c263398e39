"""`espan completion`: shell scripts that complete commands, options and their values."""

import argparse
from collections.abc import Callable, Mapping

from espan.cli.exits import OK

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
# espan's options for bash; in ~/.bashrc: eval "$(espan completion bash)"
_espan() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    case "${{COMP_WORDS[1]}} $before" in
{values}
    esac
    if [[ -z $words && $COMP_CWORD -eq 1 ]]; then
        words="{commands}"
    elif [[ -z $words && $word == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _espan espan
"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def add_to(command) -> None:
    co = command("completion", run, "Print a shell script that completes this command.")
    co.add_argument("shell", choices=SHELLS)


def run(arguments: argparse.Namespace) -> int:
    print(SCRIPTS[arguments.shell](arguments.commands), end="")
    return OK


def _bash(commands: Mapping[str, argparse.ArgumentParser]) -> str:
    values, options = [], []
    for name, parser in commands.items():
        options.append(f'            {name}) words="{" ".join(_options(parser))}" ;;')
        for action in parser._actions:
            if action.choices and action.option_strings:
                patterns = "|".join(f'"{name} {each}"' for each in action.option_strings)
                values.append(f'        {patterns}) words="{_choices(action)}" ;;')
    lines = {"values": "\n".join(values), "options": "\n".join(options)}
    return _BASH.format(commands=" ".join(commands), **lines)


def _zsh(commands: Mapping[str, argparse.ArgumentParser]) -> str:
    return _ZSH + _bash(commands).replace("bash; in ~/.bashrc", "zsh; in ~/.zshrc").replace(
        "completion bash", "completion zsh"
    )


def _fish(commands: Mapping[str, argparse.ArgumentParser]) -> str:
    lines = ["# espan's options for fish; espan completion fish | source"]
    lines.append(f"complete -c espan -n __fish_use_subcommand -f -a '{' '.join(commands)}'")
    for name, parser in commands.items():
        for action in parser._actions:
            if not action.option_strings:
                continue
            flags = [f"-l {each[2:]}" for each in action.option_strings if each.startswith("--")]
            flags += [f"-s {each[1:]}" for each in action.option_strings if len(each) == 2]
            if action.choices:
                flags.append(f"-x -a '{_choices(action)}'")
            where = f"'__fish_seen_subcommand_from {name}'"
            lines.append(f"complete -c espan -n {where} {' '.join(flags)}")
    return "\n".join(lines) + "\n"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [each for action in parser._actions for each in action.option_strings]


def _choices(action: argparse.Action) -> str:
    return " ".join(map(str, action.choices or ()))


SCRIPTS: dict[str, Callable[[Mapping[str, argparse.ArgumentParser]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
