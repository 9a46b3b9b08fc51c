"""The command line's entry. It imports click and nothing else: help and completion live from that.

The table holds each verb's one line of help, so `--help` imports no command; a test compares.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

__all__ = ["VERBS", "answer", "cli", "main"]

# verb -> (section, one line)
VERBS: Final[dict[str, tuple[str, str]]] = {
    "init": ("Start", "Make a working project from a template."),
    "demo": ("Start", "Walk the whole way on real flights, in about two minutes."),
    "up": ("Start", "Serve the API and work off what waits, in one process."),
    "run": ("Build", "Run a pipeline; unchanged steps come from the cache."),
    "runs": ("Build", "List, show and compare runs; read what a step printed."),
    "data": (
        "Build",
        "Check, profile and quarantine datasets; take in other suites; propose contracts.",
    ),
    "test": ("Build", "Run the project's own tests of its data and models."),
    "import": ("Build", "Bring a model of another registry under governance."),
    "gate": ("Build", "Tell whether a model would pass, and why not."),
    "waive": ("Build", "Let an inconclusive check through, with reason and expiry."),
    "model": ("Build", "Look into models, and convert pickles of others."),
    "release": ("Release", "Create, sign, list, show and compare releases; push and pull them."),
    "change": (
        "Release",
        "Open, list, show and end changes; templates, windows, reviews, metrics.",
    ),
    "approve": ("Release", "Sign an approval over a release and its evidence."),
    "reject": ("Release", "Sign a rejection, with the reason."),
    "status": ("Operate", "Show what is live where, and what waits for whom."),
    "rollout": ("Operate", "Plan, start, watch, steer and replay rollouts."),
    "rollback": ("Operate", "Go back to the release before, in one step."),
    "down": ("Operate", "Stop all servers of an environment."),
    "kpi": ("Operate", "Report what your own system counted of both arms."),
    "drift": ("Operate", "Show how far live inputs have moved from training."),
    "who-was-live": ("Operate", "Tell which release answered at a time."),
    "which-release": ("Operate", "Tell which release answered a request."),
    "timeline": ("Operate", "Tell everything that happened to a model."),
    "serve": ("Operate", "Serve one release folder; the data plane alone."),
    "score": ("Operate", "Answer a whole table with one release, part by part, resumably."),
    "predict": ("Operate", "Ask a live model: rows from a file, from standard input, or typed."),
    "worker": ("Operate", "Reconcile rollouts, monitors and proposals."),
    "verify": ("Trust", "Check an evidence pack or a release folder, offline."),
    "scan": ("Trust", "Look for known vulnerabilities, licences and secrets, offline."),
    "evidence": ("Trust", "Export everything that proves a model's way."),
    "audit": ("Trust", "Read the log of what happened; prove it, export it, verify it."),
    "keys": ("Trust", "Show, make, rotate and revoke keys; the trust root and its next version."),
    "access": ("Admin", "Add and list identities; make tokens."),
    "config": ("Admin", "Show every setting and where it comes from."),
    "gc": ("Admin", "Remove artifacts and cache entries that nothing needs any more."),
    "explain": ("Admin", "Explain an error code, offline."),
}
# Imports make objects, not garbage: looking for it after every 700 costs `status` 4x bare Python.
GARBAGE_AT: Final = 20_000
SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Verbs(click.Group):
    """Shows help and completes names without importing any command."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = import_module(f"falaj.doors.cli.verbs.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for section in dict.fromkeys(section for section, _ in VERBS.values()):
            with formatter.section(section):
                formatter.write_dl([(n, line) for n, (s, line) in VERBS.items() if s == section])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        return [
            CompletionItem(name, help=line)
            for name, (_, line) in VERBS.items()
            if name.startswith(incomplete)
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else " See `falaj --help`."
            raise click.UsageError(f"there is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings=SETTINGS, invoke_without_command=True)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--as", "identity", metavar="NAME", help="Act as another local identity.")
@click.option("--version", is_flag=True, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context, debug: bool, identity: str | None, version: bool) -> None:
    """From a git commit to a governed, monitored, reversible model in production."""
    ctx.obj = {"debug": debug, "as": identity}
    if version:
        from importlib.metadata import version as installed

        click.echo(f"falaj {installed('falaj')}")
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The program: run, then end with the exit code."""
    gc.set_threshold(GARBAGE_AT)
    try:
        sys.exit(answer())
    finally:
        gc.freeze()  # the system takes all memory back anyway; walking it first costs 12x bare Python


def answer() -> int:
    """Turn every ending into its exit code; a person never sees a traceback unasked."""
    try:
        code = cli.main(standalone_mode=False)  # of ctx.exit; commands themselves return nothing
    except click.ClickException as error:
        return misused(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing is lost, run it again", err=True)
        return 130
    except SystemExit:
        if hasattr(sys.stdout, "wrapped"):  # click's own: the reader (head, less) has seen enough
            return 0
        raise
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        return failed(error)
    return code if isinstance(code, int) else 0


def misused(error: click.ClickException) -> int:
    """Click's own words for people; a problem like any other for machines."""
    error.show()
    if "--json" in sys.argv:
        from falaj.base.errors import FalajError

        tell_machine(
            FalajError(
                "cli.usage", error.format_message(), fix="`falaj --help` and `falaj VERB --help`"
            )
        )
    return 2


def failed(error: Exception) -> int:
    """Say what went wrong and return the exit code."""
    from falaj.base.errors import Exit, FalajError

    if isinstance(error, FalajError):
        show(error)
        return error.exit
    from falaj.doors.cli.crash import report

    path = report(error)
    told = FalajError(
        "cli.crash",
        f"falaj itself failed: {type(error).__name__}",
        why="this is our mistake, not yours; what was committed is safe",
        fix=f"send the report {path} (it holds no values of your data)",
    )
    told.exit, told.status = Exit.INTERNAL, 500  # type: ignore[misc]
    show(told)
    return Exit.INTERNAL


def show(error: Any) -> None:
    import shutil

    from falaj.doors.cli.diagnostics import render

    if "--json" in sys.argv:
        tell_machine(error)
    width = shutil.get_terminal_size((100, 24)).columns
    click.echo(render(error, width=width), err=True)


def tell_machine(error: Any) -> None:
    """The one document on stdout."""
    import json

    from falaj.base.problems import document

    click.echo(json.dumps(document(error)))
