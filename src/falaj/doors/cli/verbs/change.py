"""falaj change."""

from __future__ import annotations

from typing import Any

import click

from falaj.doors.cli import terminal
from falaj.doors.cli.client import connect
from falaj.doors.cli.reports import rows

__all__ = ["command", "judging", "one_waiting"]


@click.group("change")
def command() -> None:
    """Open, list, show and end changes; templates, windows, reviews, metrics."""


def planned(function: Any) -> Any:
    for option in (
        click.option("--not-after", default="", metavar="TIME", help="Not to start after it."),
        click.option("--not-before", default="", metavar="TIME", help="Not to start before it."),
    ):
        function = option(function)
    return function


@command.command("open")
@click.argument("release", required=False, default="")
@click.option("-e", "--environment", default="production", show_default=True)
@click.option("-m", "--message", "reason", default="", help="Why.")
@click.option("--template", default="", metavar="NAME", help="A standard change by this template.")
@click.option("--emergency", "incident", default="", metavar="INCIDENT", help="What cannot wait.")
@planned
@terminal.json_option
@click.pass_context
def open_one(
    ctx: click.Context,
    release: str,
    environment: str,
    reason: str,
    template: str,
    incident: str,
    not_before: str,
    not_after: str,
    machine: bool,
) -> None:
    """Ask to bring a release (the newest when not said) to an environment.

    Without an option it is a normal change: its risk is computed from what differs, approvals follow
    the risk. A standard change was approved as a template; it must stay inside its bounds. An
    emergency asks for fewer approvals, is held up by no window and no freeze, and may put undecided
    gates off; what it saves is looked at afterwards.

    \b
    Examples:
      falaj change open
      falaj change open 1.1.0 -e production -m "trained on April too"
      falaj change open 1.1.0 --template monthly
      falaj change open 1.1.0 --emergency INC-7 -m "wrong prices"
    """
    change = connect(ctx).post(
        f"/environments/{environment}/changes",
        {
            "release": release,
            "reason": reason,
            "template": template,
            "incident": incident,
            "not_before": not_before,
            "not_after": not_after,
        },
    )
    if machine:
        return terminal.as_json("change", change)
    say(change)
    follow(change)
    return None


def follow(change: dict[str, Any]) -> None:
    if change["state"] == "approved":
        click.echo(f"next: falaj rollout start {change['id']}")
    else:
        click.echo(f"next: somebody else types: falaj --as NAME approve {change['id']} -m ...")


@command.command
@click.argument("source", metavar="ENVIRONMENT")
@click.option("-e", "--environment", default="", help="To which one, when several come after it.")
@click.option("--model", default="", help="Which model, when several are live there.")
@click.option("-m", "--message", "reason", default="", help="Why.")
@click.option("--template", default="", metavar="NAME", help="A standard change by this template.")
@planned
@terminal.json_option
@click.pass_context
def promote(
    ctx: click.Context,
    source: str,
    environment: str,
    model: str,
    reason: str,
    template: str,
    not_before: str,
    not_after: str,
    machine: bool,
) -> None:
    """Ask to bring what is live in one environment to the next; its evidence goes along.

    \b
    Examples:
      falaj change promote staging
      falaj change promote staging -e production -m "a week without an alert"
    """
    client = connect(ctx)
    known = {one["name"]: one for one in client.get("/environments")}
    if source not in known:
        raise click.UsageError(f"there is no environment {source!r}; known: {', '.join(known)}")
    after = [name for name, one in known.items() if source in one["before"]]
    if environment:
        after = [environment]
    if len(after) != 1:
        names = ", ".join(after) or "none"
        raise click.UsageError(f"name the environment with -e; after {source} come: {names}")
    (here,) = (e for e in client.get("/status")["environments"] if e["environment"] == source)
    live = [move for move in here["live"] if model in ("", move["model"])]
    if len(live) != 1:
        names = ", ".join(move["model"] for move in live) or "nothing"
        raise click.UsageError(f"name the model with --model; live in {source}: {names}")
    change = client.post(
        f"/environments/{after[0]}/changes",
        {
            "release": live[0]["stable"],
            "reason": reason or f"promoted from {source}",
            "template": template,
            "not_before": not_before,
            "not_after": not_after,
        },
    )
    if machine:
        return terminal.as_json("change", change)
    say(change)
    follow(change)
    return None


@command.command("list")
@click.option("--state", default="", help="Only changes in this state.")
@terminal.json_option
@click.pass_context
def list_all(ctx: click.Context, state: str, machine: bool) -> None:
    """List changes, newest first.

    \b
    Examples:
      falaj change list
      falaj change list --state awaiting-approval
    """
    found = connect(ctx).get("/changes", state=state)
    if machine:
        return terminal.as_json("changes", found)
    terminal.table(
        [(c["id"], c["title"], c["environment"], c["state"], c["kind"], c["risk"]) for c in found],
        ("id", "change", "environment", "state", "kind", "risk"),
    )
    return None


@command.command
@click.argument("change")
@terminal.json_option
@click.pass_context
def show(ctx: click.Context, change: str, machine: bool) -> None:
    """Show what changes, its risk, the evidence, and what is still missing.

    \b
    Examples:
      falaj change show CHG-0001
      falaj change show CHG-0001 --json
    """
    found = connect(ctx).get(f"/changes/{change}")
    if machine:
        return terminal.as_json("change-view", found)
    told = found["change"]
    say(told)
    by = found["names"].get(told["author"], told["author"])
    click.echo(f"asked by {by} {terminal.ago(told['opened'])}: {told['reason']}")
    if told["differences"]:
        click.echo(f"{told['differences']} Each: falaj release diff")
    if told["factors"]:
        terminal.table(
            [(f["what"], f["risk"], str(f["points"]), f["reason"]) for f in told["factors"]],
            ("what", "risk", "points", "why"),
        )
    for one in told["carried"]:
        judged = f", {one['requests']:,} answers judged" if one["requests"] else ""
        click.echo(
            f"carried from {one['environment']}: alone there since {short_time(one['since'])}"
            f"{judged} ({one['change']}, {one['rollout']})"
        )
    if found["report"]:
        terminal.table(rows(found["report"]), ("check", "verdict", "measured", "why"))
    for approval in found["approvals"]:
        click.echo(spoken(approval, found["counting"]))
    owed(told)
    if found["missing"]:
        click.echo(f"missing: {', '.join(found['missing'])}")
    if told["rehearsal"] and told["rehearsal"]["release"]:
        tried = told["rehearsal"]
        said = tried["trouble"] or (
            f"{tried['files']} files verified, {tried['servers']} server(s) warm"
        )
        click.echo(f"way back to {tried['version']} tried {short_time(tried['at'])}: {said}")
    if found["review"]:
        review = found["review"]
        click.echo(
            f"reviewed by {review['principal']}: {review['conclusion']}"
            if review["conclusion"]
            else f"review owed until {short_time(review['due'])}: "
            f"falaj --as NAME change review {told['id']} -m ..."
        )
    return None


def spoken(approval: dict[str, Any], counting: list[str]) -> str:
    if approval["void"]:
        state = f"void: {approval['void']}"
    elif approval["decision"] != "approve":
        state = "signed"
    elif approval["id"] in counting:
        state = f"counts until {short_time(approval['expires'])}"
    else:
        state = "does not count any more"
    role = " as validator" if approval["validator"] else ""
    groups = f" of {', '.join(approval['groups'])}" if approval["groups"] else ""
    return (
        f"{approval['decision']} by {approval['principal']}{role}{groups}, {state}: "
        f"{approval['comment']}"
    )


def owed(change: dict[str, Any]) -> None:
    if change["deferred"]:
        names = ", ".join(change["deferred"])
        done = change["gates_done"]
        click.echo(
            f"deferred gates: {names}; "
            + (
                f"made up for {short_time(done)}"
                if done
                else f"due {short_time(change['gates_due'])}"
            )
        )


def short_time(at: str) -> str:
    return f"{at[:10]} {at[11:16]}Z"


@command.command
@click.argument("change")
@click.pass_context
def take(ctx: click.Context, change: str) -> None:
    """Take up a proposed change; it then waits for approval.

    \b
    Examples:
      falaj change take CHG-0004
      falaj change show CHG-0004
    """
    say(connect(ctx).post(f"/changes/{change}/take"))


def ending(verb: str, line: str, typed: str, reason: str) -> click.Command:
    """Verbs that need a change and a reason."""

    @click.command(
        verb,
        help=f"{line}\n\n\b\nExamples:\n"
        f'  {typed} CHG-0001 -m "{reason}"\n'
        f'  {typed} CHG-0001 -m "{reason}" --json',
    )
    @click.argument("change")
    @click.option("-m", "--message", "comment", required=True, help="Why; kept with the record.")
    @terminal.json_option
    @click.pass_context
    def end(ctx: click.Context, change: str, comment: str, machine: bool) -> None:
        found = connect(ctx).post(f"/changes/{change}/{verb}", {"comment": comment})
        if machine:
            return terminal.as_json("change", found)
        say(found)
        return None

    return end


for _words in (
    (
        "withdraw",
        "End a change that has not begun.",
        "falaj change withdraw",
        "a better one comes",
    ),
    (
        "retract",
        "Take back one's own approval, signed like it.",
        "falaj --as layla change retract",
        "I read the wrong report",
    ),
):
    command.add_command(ending(*_words))


@command.command
@click.argument("change")
@terminal.json_option
@click.pass_context
def close(ctx: click.Context, change: str, machine: bool) -> None:
    """Close a change that ended well and owes nothing.

    \b
    Examples:
      falaj change close CHG-0001
      falaj change close CHG-0001 --json
    """
    found = connect(ctx).post(f"/changes/{change}/close")
    if machine:
        return terminal.as_json("change", found)
    say(found)
    return None


@command.command
@click.argument("change")
@click.option("-m", "--message", "conclusion", default="", help="What was learned; signs it.")
@click.option("--cause", default="", help="Of a failure: a word that repeats when it does.")
@terminal.json_option
@click.pass_context
def review(ctx: click.Context, change: str, conclusion: str, cause: str, machine: bool) -> None:
    """Show the review of a change as its numbers fill it; with -m sign it and close the change.

    Owed after an emergency, a failure, a rollback and a high risk; by somebody who did not carry the
    change out.

    \b
    Examples:
      falaj change review CHG-0001
      falaj --as layla change review CHG-0001 -m "a unit changed" --cause units
    """
    client = connect(ctx)
    found = (
        client.post(f"/changes/{change}/review", {"conclusion": conclusion, "cause": cause})
        if conclusion
        else client.get(f"/changes/{change}/review")
    )
    if machine:
        return terminal.as_json("review", found)
    from falaj.changes.review import in_words

    click.echo(f"{found['id']}  {found['model']} in {found['environment']}: {found['outcome']}")
    for line in found["timeline"]:
        click.echo(f"  {line}")
    for line in in_words(found["numbers"]):
        click.echo(f"  {line}")
    if found["conclusion"]:
        said = f" (cause: {found['cause']})" if found["cause"] else ""
        click.echo(f"reviewed by {found['principal']}: {found['conclusion']}{said}")
    else:
        click.echo(f"not yet reviewed; due {short_time(found['due'])}")
    return None


@command.command
@click.option("--model", default="", help="Only changes of this model.")
@click.option("-e", "--environment", default="", help="Only changes of this environment.")
@click.option("--since", default="", metavar="TIME", help="Only changes that began since then.")
@click.option("--by-month", is_flag=True, help="A line for each month as well.")
@terminal.json_option
@click.pass_context
def metrics(
    ctx: click.Context, model: str, environment: str, since: str, by_month: bool, machine: bool
) -> None:
    """Tell how changes go: failure rate, lead time, time to restore, shares of kinds.

    Rates carry their 95 % bounds and are not said below five changes.

    \b
    Examples:
      falaj change metrics
      falaj change metrics -e production --since 2026-01-01 --by-month
    """
    found = connect(ctx).get(
        "/change-metrics",
        model=model,
        environment=environment,
        since=since,
        by="month" if by_month else "",
    )
    if machine:
        return terminal.as_json("change-metrics", found)
    terminal.table(
        [
            (
                row["model"],
                row["month"] or "all",
                str(row["started"]),
                rate(row["failure_rate"]),
                rate(row["standard"]),
                rate(row["emergency"]),
                span(row["lead_time_s"]),
                span(row["restore_s"]),
                span(row["approval_wait_s"]),
            )
            for row in found["rows"]
        ],
        (
            *("model", "when", "began", "failed", "standard", "emergency"),
            *("lead time", "restored in", "approval took"),
        ),
    )
    for row in found["rows"]:
        if not row["month"] and (row["reviews_open"] or row["gates_overdue"]):
            click.echo(
                f"{row['model']}: {row['reviews_open']} review(s) owed, "
                f"{row['reviews_overdue']} overdue; {row['gates_overdue']} overdue deferred gate(s)"
            )
    click.echo(f"live without a change: {found['unauthorised']} (must be 0)")
    return None


def rate(share: dict[str, Any]) -> str:
    counted = f"{share['x']} of {share['n']}"
    if share["value"] is None:
        return counted
    return f"{counted} = {share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"


def span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


@command.command
@click.option("-e", "--environment", default="", help="Only this one.")
@terminal.json_option
@click.pass_context
def calendar(ctx: click.Context, environment: str, machine: bool) -> None:
    """Show environments in their order, what each asks for, and when rollouts may begin.

    \b
    Examples:
      falaj change calendar
      falaj change calendar -e production --json
    """
    found = [one for one in connect(ctx).get("/environments") if environment in ("", one["name"])]
    if not found:
        raise click.UsageError(f"there is no environment {environment!r}")
    if machine:
        return terminal.as_json("calendar", found)
    for one in found:
        after = f", after {', '.join(one['before'])}" if one["before"] else ""
        safe = ", protected" if one["protected"] else ""
        click.echo(f"{one['name']} in {one['region'] or 'no region'}{after}{safe}")
        groups = "".join(f", {n} of {g}" for g, n in sorted(one["groups"].items()))
        click.echo(
            f"  asks for {', '.join(one['requires']) or 'no gate'}; "
            f"{one['approvals']} approval(s){groups}"
            + (f"; {one['soak']} in the one before" if one["soak"] != "0s" else "")
        )
        now = "open now" if one["open"] else f"closed until {when(one['opens'])}"
        frozen = f" (frozen: {one['frozen']})" if one["frozen"] else ""
        click.echo(f"  rollouts begin {one['windows']}: {now}{frozen}")
        for name, starts, ends in one["freezes"]:
            click.echo(f"  frozen {short_time(starts)} to {short_time(ends)}: {name}")
    return None


def when(at: str | None) -> str:
    return short_time(at) if at else "further notice"


@command.command
@terminal.json_option
@click.pass_context
def templates(ctx: click.Context, machine: bool) -> None:
    """List templates of standard changes, and whether each allows one now.

    \b
    Examples:
      falaj change templates
      falaj change templates --json
    """
    found = connect(ctx).get("/templates")
    if machine:
        return terminal.as_json("templates", found)
    if not found:
        click.echo("falaj.toml holds no [changes.templates.<name>]")
    for one in found:
        click.echo(
            f"{one['name']}  {one['environment']}, owned by {one['owner']}, until {one['expires']}"
        )
        if one["about"]:
            click.echo(f"  {one['about']}")
        bounds = one["bounds"]
        click.echo(
            f"  may differ: parameters {', '.join(bounds['parameters']) or 'none'}; datasets "
            f"{', '.join(bounds['datasets']) or 'none'} by {bounds['rows_change']:.0%} of their rows; "
            f"metrics worse by {bounds['metric_drop']:g}"
            + ("; packages" if bounds["packages"] else "")
        )
        signed = ", ".join(s["principal"] for s in one["signatures"]) or "nobody"
        click.echo(f"  signed by {signed}; {one['used']} of {one['max_per_month']} used this month")
        for code, words in one["problems"]:
            click.echo(f"  allows nothing now: {words} [{code}]")
    return None


@command.command
@click.argument("template")
@click.option("-m", "--message", "comment", required=True, help="Why; kept with the signature.")
@terminal.json_option
@click.pass_context
def preapprove(ctx: click.Context, template: str, comment: str, machine: bool) -> None:
    """Sign a template as it stands: standard changes inside its bounds need no other approval.

    Its owner cannot; another word in falaj.toml makes the signature void.

    \b
    Examples:
      falaj --as layla change preapprove monthly -m "small, goes back alone"
      falaj --as layla change preapprove monthly -m "another year" --json
    """
    client = connect(ctx)
    shown = next((t["digest"] for t in client.get("/templates") if t["name"] == template), "")
    found = client.post(f"/templates/{template}/preapprove", {"comment": comment, "shown": shown})
    if machine:
        return terminal.as_json("preapproval", found)
    click.echo(
        f"{template} signed by {found['principal']} until {short_time(found['expires'])}, "
        f"words {terminal.short(found['digest'])}"
    )
    click.echo(f"next: falaj change open --template {template}")
    return None


def say(change: dict[str, Any]) -> None:
    click.echo(f"{change['id']}  {change['title']}  ({change['environment']})")
    more = f" {change['template']}" if change["template"] else ""
    more = f" {change['incident']}" if change["incident"] else more
    click.echo(f"{change['state']} · {change['kind']}{more} · risk {change['risk']}")
    for reason in change["risk_reasons"]:
        click.echo(f"  {reason}")
    click.echo(f"plan: {change['plan']}; back-out: {change['back_out']}")
    click.echo(f"evidence {change['evidence']}, gate report {terminal.short(change['report'])}")
    asks = [f"{change['approvals_needed']} approval(s)"]
    asks += [f"{n} of group {g}" for g, n in sorted(change["groups_needed"].items())]
    asks += ["a validator among them"] if change["validator"] else []
    if change["state"] in ("awaiting-approval", "proposed"):
        click.echo(f"asks for {', '.join(asks)}")


def one_waiting(client: Any, change: str, state: str) -> str:
    """The change that was named, or the only one in this state."""
    if change:
        return change
    found = client.get("/changes", state=state)
    if len(found) != 1:
        names = ", ".join(c["id"] for c in found) or "none"
        raise click.UsageError(f"name the change; {state}: {names}")
    return str(found[0]["id"])


def judging(verb: str, line: str) -> click.Command:
    """`approve` and `reject`: read what stands there, sign exactly that."""

    @click.command(
        verb,
        help=f"{line}\n\nThe digests of what you decide about are read first and sent along: if the "
        "evidence changes in between, nothing is signed.\n\n\b\nExamples:\n"
        f'  falaj --as layla {verb} CHG-0001 -m "read the evidence"\n'
        f'  falaj --as layla {verb} -m "read the evidence"',
    )
    @click.argument("change", required=False, default="")
    @click.option("-m", "--message", "comment", required=True, help="Why; kept with the signature.")
    @click.option(
        "--report",
        default="",
        metavar="DIGEST",
        help="Digest of the gate report that you read; nothing is signed over another one.",
    )
    @terminal.json_option
    @click.pass_context
    def judge(ctx: click.Context, change: str, comment: str, report: str, machine: bool) -> None:
        client = connect(ctx)
        name = one_waiting(client, change, "awaiting-approval")
        shown = client.get(f"/changes/{name}")["change"]
        after = client.post(
            f"/changes/{name}/{verb}",
            {
                "comment": comment,
                "shown_release": shown["release"],
                "shown_evidence": shown["evidence"],
                "shown_report": report or shown["report"],
            },
        )
        if machine:
            return terminal.as_json("change", after)
        say(after)
        if after["state"] == "approved":
            click.echo(f"next: falaj rollout start {name}")
        return None

    return judge
