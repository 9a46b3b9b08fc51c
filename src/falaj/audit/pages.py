"""The story of an evidence pack as pages: what answers since when, why it was allowed, who said so.

For people. What they say is sealed with the pack, and whether the pack is genuine is told by
`falaj verify` alone; the pages say so first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from falaj.base import canonical, digests, dsse
from falaj.base.checktable import check_tables
from falaj.base.sheets import Html, bdi, digest, h, join, sheet, table, verdict
from falaj.facts.attestations import CODE_SCAN, GATE, PROVENANCE, VULNERABILITIES
from falaj.facts.changes import Approval, Change, ChangeState, Decision
from falaj.facts.checks import CheckResult, Waiver
from falaj.facts.rollouts import LiveMove, Outcome, Rollout, RolloutDecision
from falaj.facts.testing import TestReport

__all__ = ["ARABIC", "PAGES", "Story", "page"]

PAGES: Final = {"en": "index.html", "ar": "index.ar.html"}  # language -> member of the pack
ORDER: Final = "quality bias slices robustness calibration leakage latency security data"
Say = Callable[[str], str]

GOOD: Final = (ChangeState.APPROVED, ChangeState.IMPLEMENTED, ChangeState.CLOSED)
BAD: Final = (ChangeState.REJECTED, ChangeState.FAILED, ChangeState.ROLLED_BACK)

# English words of the pages -> Arabic.
ARABIC: Final[Mapping[str, str]] = {
    "Evidence pack": "حزمة الأدلة",
    "Other language": "English",
    "Written": "كُتبت",
    "in project": "في مشروع",
    "This page tells what the pack holds. Whether it is genuine is told by `falaj verify` with a "
    "trust root that came to you on another way.": "تحكي هذه الصفحة ما في الحزمة. أما صحتها فيحكم بها "
    "`falaj verify` بجذر ثقة وصل إليكم من طريق آخر.",
    "What answers now": "ما الذي يجيب الآن",
    "Nothing has answered yet.": "لم يجب شيء بعد.",
    "Environment": "البيئة",
    "Release": "الإصدار",
    "Share": "الحصة",
    "Since": "منذ",
    "Allowed by": "سُمح به بموجب",
    "Approved by": "وافق عليه",
    "no change in this pack": "لا تغيير في هذه الحزمة",
    "nobody": "لا أحد",
    "Its way into production": "طريقه إلى الإنتاج",
    "for": "لمدة",
    "until this pack was written": "حتى كتابة هذه الحزمة",
    "{stable} is the first to answer": "{stable} أول من يجيب",
    "{stable} now answers alone": "{stable} يجيب وحده من الآن",
    "{canary} is made ready beside {stable}": "{canary} يُجهَّز بجانب {stable}",
    "{canary} answers {share} of requests, {stable} the rest": "{canary} يجيب عن {share} من الطلبات، "
    "و{stable} عن الباقي",
    "{gone} is taken back, {stable} answers alone": "سُحب {gone}، و{stable} يجيب وحده",
    "cause": "السبب",
    "Why it was allowed": "لماذا سُمح به",
    "Id": "المعرّف",
    "Made": "صُنع",
    "Code": "الشيفرة",
    "with local changes": "مع تغييرات محلية",
    "not under version control": "ليست تحت إدارة الإصدارات",
    "Pipeline": "خط المعالجة",
    "Run": "التشغيل",
    "Seed": "البذرة",
    "Parameters": "المعاملات",
    "Made from": "صُنع من",
    "Rules that decided": "القواعد التي حكمت",
    "Compared with": "قورن مع",
    "Model card": "بطاقة النموذج",
    "in this pack": "في هذه الحزمة",
    "Check": "الفحص",
    "Verdict": "الحكم",
    "Value": "القيمة",
    "Interval": "الفترة",
    "Limit": "الحد",
    "Rows": "الصفوف",
    "Reason": "السبب",
    "required": "مطلوبة",
    "not required": "غير مطلوبة",
    "No check was made.": "لم يُجرَ أي فحص.",
    "No verdict of a gate lies in this release.": "لا يوجد في هذا الإصدار حكم لأي بوابة.",
    "A verdict is decided on the bound of the interval, not on the value.": "يُحسم الحكم على حد "
    "الفترة لا على القيمة.",
    "Waivers": "الإعفاءات",
    "Owner": "المالك",
    "Expires": "ينتهي في",
    "Scans": "عمليات المسح",
    "Known vulnerabilities": "الثغرات المعروفة",
    "Findings in the code": "ملاحظات في الشيفرة",
    "advisories of": "نشرات بتاريخ",
    "Tests of the project": "اختبارات المشروع",
    "Who allowed it": "من سمح به",
    "No change was asked for.": "لم يُطلب أي تغيير.",
    "Asked by": "طلبه",
    "Asked": "طُلب",
    "Risk": "الخطورة",
    "Plan": "الخطة",
    "Way back": "طريق العودة",
    "Evidence": "الأدلة",
    "State": "الحالة",
    "Who": "من",
    "Decision": "القرار",
    "When": "متى",
    "Comment": "التعليق",
    "valid until": "صالح حتى",
    "void": "باطل",
    "Nobody has decided yet.": "لم يقرر أحد بعد.",
    "needed": "المطلوب",
    "Approvals": "الموافقات",
    "What the rollouts decided": "ما قررته عمليات الطرح",
    "No rollout has decided anything.": "لم تقرر أي عملية طرح شيئا.",
    "Counts are those of the canary / of the stable release.": "الأعداد للإصدار التجريبي / للإصدار "
    "المستقر.",
    "At": "الوقت",
    "Step": "الخطوة",
    "Requests": "الطلبات",
    "Errors": "الأخطاء",
    "Wrong answers": "الإجابات الخاطئة",
    "Action": "الإجراء",
    "Every look of the analysis": "كل نظرات التحليل",
    "The log": "السجل",
    "events": "حدثا",
    "Merkle root": "جذر ميركل",
    "Checkpoint": "نقطة التحقق",
    "This pack holds no signed checkpoint.": "لا تحتوي هذه الحزمة على نقطة تحقق موقعة.",
    "What is proved when it verifies": "ما الذي يثبت عند نجاح التحقق",
    "Each file is byte for byte the one that was sealed; none was added or taken away.": "كل ملف هو "
    "نفسه الذي خُتم بايتا بايتا؛ لم يُضف شيء ولم يُحذف.",
    "Each release is signed as a whole, and each verdict of a gate by a key of that role, over "
    "exactly this model.": "كل إصدار موقع كاملا، وكل حكم لبوابة موقع بمفتاح لهذا الدور على هذا النموذج "
    "تحديدا.",
    "Each approval is signed by who gave it, over this release and this evidence, and is not by an "
    "author.": "كل موافقة موقعة ممن أعطاها على هذا الإصدار وهذه الأدلة، وليست من أحد المؤلفين.",
    "The events of the log lead to its root: none was dropped, changed or moved.": "أحداث السجل تقود "
    "إلى جذره: لم يُحذف حدث ولم يُغير ولم يُنقل.",
    "Whatever is told here about releases, changes, approvals, decisions and live moves has its event "
    "in the log.": "كل ما يُحكى هنا عن الإصدارات والتغييرات والموافقات والقرارات والتحولات الحية له حدث "
    "في السجل.",
    "What is not": "ما الذي لا يثبت",
    "That nobody was shown another log: a witness who cosigned the checkpoint proves it, or a "
    "checkpoint that you keep.": "أن أحدا لم يُعرض عليه سجل آخر: يثبته شاهد وقّع نقطة التحقق معنا، أو "
    "نقطة تحقق تحتفظون بها.",
    "That times are right: they are this system's own, unless a witness's time stands beside them.": "أن "
    "الأوقات صحيحة: هي أوقات هذا النظام ما لم يقف بجانبها وقت شاهد.",
    "How to check it": "كيف تتحققون منها",
    "Take the trust root that came to you on another way; the keys inside this pack prove "
    "nothing.": "خذوا جذر الثقة الذي وصل إليكم من طريق آخر؛ فالمفاتيح داخل الحزمة لا تثبت شيئا.",
    "On any machine, without a network:": "على أي جهاز، دون شبكة:",
    "Or with the verifier that needs nothing of Falaj, and came to you on another way, too:": "أو "
    "بأداة التحقق التي لا تحتاج إلى Falaj ووصلت إليكم هي أيضا من طريق آخر:",
    "It ends with 0 when everything holds, with 7 and the name of each file that differs when "
    "not.": "ينتهي بالرقم 0 إن صح كل شيء، وبالرقم 7 مع اسم كل ملف مختلف إن لم يصح.",
    "In this pack": "في هذه الحزمة",
    "File": "الملف",
    "What it is": "ما هو",
    "manifest.json lists every file with its digest; manifest.dsse.json seals it.": "manifest.json يسرد "
    "كل ملف ببصمته؛ manifest.dsse.json يختمه.",
    "each release as it was signed": "كل إصدار كما وُقع",
    "what approvers signed": "ما وقعه الموافقون",
    "reports of gates, with waivers": "تقارير البوابات مع الإعفاءات",
    "reports of tests, for people and as JUnit": "تقارير الاختبارات للناس وبصيغة JUnit",
    "the whole audit log": "سجل التدقيق كاملا",
    "d": "ي",
    "h": "س",
    "min": "د",
    "s": "ث",
    "pass": "ناجح",
    "fail": "راسب",
    "inconclusive": "غير حاسم",
    "error": "خطأ",
    "skipped": "متروك",
    "promote": "ترقية",
    "rollback": "تراجع",
    "continue": "متابعة",
    "pause": "إيقاف مؤقت",
    "invalid": "غير صالح",
    "hold": "انتظار",
    "advance": "تقدم",
    "abort": "إلغاء",
    "approve": "موافقة",
    "reject": "رفض",
    "retract": "سحب الموافقة",
    "low": "منخفضة",
    "medium": "متوسطة",
    "high": "عالية",
    "proposed": "مقترح",
    "assessing": "قيد التقييم",
    "awaiting-approval": "بانتظار الموافقة",
    "approved": "موافق عليه",
    "rejected": "مرفوض",
    "withdrawn": "مسحوب",
    "expired": "منته",
    "implementing": "قيد التنفيذ",
    "implemented": "منفذ",
    "rolled-back": "متراجع عنه",
    "failed": "فاشل",
    "closed": "مغلق",
    "quality": "الجودة",
    "bias": "التحيز",
    "robustness": "المتانة",
    "latency": "زمن الاستجابة",
    "security": "الأمان",
    "data": "البيانات",
    "slices": "الشرائح",
    "calibration": "المعايرة",
    "leakage": "التسرب",
    "checks": "الفحوص الخاصة",
    "tests": "الاختبارات",
    "dependencies": "الاعتماديات",
    "code": "الشيفرة",
}


class Story(NamedTuple):
    """What a pack is about. releases: id -> folder. log: size and root. checkpoint: its text."""

    project: str
    created: datetime
    releases: Mapping[str, Path]
    changes: Sequence[Change]
    approvals: Sequence[Approval]
    decisions: Sequence[RolloutDecision]
    moves: Sequence[LiveMove]
    rollouts: Sequence[Rollout] = ()
    tests: Sequence[TestReport] = ()
    log: Mapping[str, Any] = {}
    checkpoint: str = ""


class Read(NamedTuple):
    """A release folder, read once. statements: file -> (predicate type, predicate)."""

    id: str
    manifest: Mapping[str, Any]
    statements: Mapping[str, tuple[str, Mapping[str, Any]]]

    @property
    def name(self) -> str:
        return f"{self.manifest.get('model', '')} {self.manifest.get('version', '')}"

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [said for found, said in self.statements.values() if found == kind]


def page(story: Story, language: str = "en") -> str:
    """The same story gives the same page."""
    say: Say = (lambda words: ARABIC.get(words, words)) if language == "ar" else str
    releases = sorted(
        (read(id_, folder) for id_, folder in story.releases.items()),
        key=lambda one: (str(one.manifest.get("created", "")), one.id),
        reverse=True,
    )
    models = sorted({str(one.manifest.get("model", "")) for one in releases})
    title = f"{say('Evidence pack')}: {', '.join(models) or story.project}"
    other = PAGES["en" if language == "ar" else "ar"]
    link = f'<a href="{other}">{h("English" if language == "ar" else "العربية")}</a>'
    warned = say(
        "This page tells what the pack holds. Whether it is genuine is told by `falaj verify` with a "
        "trust root that came to you on another way."
    )
    parts = [
        Html(f"<h1>{h(say('Evidence pack'))}: {bdi(', '.join(models) or story.project)}</h1>"),
        Html(
            f'<p class="muted">{h(say("Written"))} {when(story.created)} {h(say("in project"))} '
            f"{bdi(story.project)} · {link}</p>"
        ),
        Html(f'<p class="lead">{coded(warned)}</p>'),
        part(say("What answers now"), now_live(story, releases, say)),
        part(say("Its way into production"), *timeline(story, say)) if story.moves else "",
        part(say("Who allowed it"), *allowed(story, say)),
        part(say("Why it was allowed"), *(told(one, story, say) for one in releases)),
        part(say("What the rollouts decided"), *decided(story, say)),
        part(say("The log"), *logged(story, say)),
        part(say("How to check it"), *checking(say)),
    ]
    return sheet(title, parts, language=language, from_right=language == "ar")


def part(title: str, *body: object) -> Html:
    return Html(f"<section><h2>{h(title)}</h2>{join(body)}</section>")


def read(id_: str, folder: Path) -> Read:
    manifest = canonical.loads((folder / "release.json").read_bytes())
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for path in sorted((folder / "evidence").glob("*.dsse.json")):
        try:
            envelope = canonical.loads(path.read_bytes())
            payload = envelope["payload"] if isinstance(envelope, dict) else ""
            said = canonical.loads(dsse.decode(str(payload)))
        except (canonical.NotCanonical, dsse.BadEnvelope, KeyError):
            continue  # told by the verifier; a page shows what can be read
        match said:
            case {"predicateType": str(kind), "predicate": dict(predicate)}:
                found[path.name] = kind, predicate
    return Read(id_, manifest, found)


# --- what answers ---


def now_live(story: Story, releases: Sequence[Read], say: Say) -> Html:
    verdicts = {one.id: one for one in releases}
    found: list[Html] = []
    for environment, moves in by_environment(story.moves).items():
        last = moves[-1]
        for release, version, share in arms(last):
            change = next(
                (
                    c
                    for c in reversed(in_order(story.changes))
                    if c.release == release and c.environment == last.environment
                ),
                None,
            )
            people = ", ".join(a.principal for a in approving(story, change)) if change else ""
            rows: list[tuple[object, object]] = [
                (say("Release"), digest(release)),
                (say("Share"), number(f"{share:g} %")),
                (say("Since"), when(since(moves, release))),
                (
                    say("Allowed by"),
                    Html(f"{bdi(change.id)} {bdi(change.title)}")
                    if change
                    else say("no change in this pack"),
                ),
                (say("Approved by"), bdi(people) if people else say("nobody")),
                (say("Verdict"), pills(verdicts.get(release), say)),
            ]
            title = f"{bdi(environment)}: {bdi(f'{last.model} {version}')}"
            found.append(Html(f"<h3>{title}</h3>{table(('', ''), rows)}"))
    return join(found) or Html(f"<p>{h(say('Nothing has answered yet.'))}</p>")


def arms(move: LiveMove) -> list[tuple[str, str, float]]:
    """(release, version, share in percent) of what answers after a move."""
    canary = move.weight_bp / 100 if move.canary else 0.0
    found = [(move.stable, move.stable_version, 100 - canary)]
    if canary:
        found.append((move.canary, move.canary_version, canary))
    return [arm for arm in found if arm[2] > 0]


def since(moves: Sequence[LiveMove], release: str) -> datetime:
    """From when on the release has answered without a break."""
    at = moves[-1].at
    for move in reversed(moves):
        if release not in {arm[0] for arm in arms(move)}:
            break
        at = move.at
    return at


def by_environment(moves: Sequence[LiveMove]) -> dict[str, list[LiveMove]]:
    found: dict[str, list[LiveMove]] = {}
    for move in sorted(moves, key=lambda one: (one.at, one.seq, one.id)):
        found.setdefault(f"{move.environment} / {move.model}", []).append(move)
    several = len({key.partition(" / ")[2] for key in found}) > 1
    return found if several else {key.partition(" / ")[0]: value for key, value in found.items()}


def timeline(story: Story, say: Say) -> Iterable[Html]:
    """One point a move: what changed, a bar of the shares, how long it stayed so."""
    environments = by_environment(story.moves)
    for environment, moves in environments.items():
        if len(environments) > 1:
            yield Html(f"<h3>{bdi(environment)}</h3>")
        points = []
        before: LiveMove | None = None
        for at, move in enumerate(moves):
            after = moves[at + 1].at if at + 1 < len(moves) else story.created
            last = at + 1 == len(moves)
            points.append(point(before, move, after - move.at, say, last=last))
            before = move
        yield Html(f'<ol class="time">{join(points)}</ol>')


def point(
    before: LiveMove | None, move: LiveMove, lasting: timedelta, say: Say, *, last: bool
) -> Html:
    share = move.weight_bp / 100 if move.canary else 0.0
    names = {
        "stable": bdi(move.stable_version),
        "canary": bdi(move.canary_version),
        "share": number(f"{share:g} %"),
    }
    back = False
    if before is None:
        words = "{stable} is the first to answer"
    elif before.stable != move.stable and before.canary == move.stable:
        words = "{stable} now answers alone"
    elif before.stable != move.stable or (before.canary and not move.canary):
        back = True
        names["gone"] = bdi(before.canary_version or before.stable_version)
        words = "{gone} is taken back, {stable} answers alone"
    elif not share:
        words = "{canary} is made ready beside {stable}"
    else:
        words = "{canary} answers {share} of requests, {stable} the rest"
    stays = (
        say("until this pack was written")
        if last
        else Html(f"{h(say('for'))} {spell(lasting, say)}")
    )
    label = f"{move.stable_version} {100 - share:g} %"
    label += f", {move.canary_version} {share:g} %" if share else ""
    bar = (
        f'<svg width="100%" height="10" role="img" aria-label="{h(label)}">'
        f'<rect class="areaa" width="{100 - share:g}%" height="10"/>'
        f'<rect class="dotb" x="{100 - share:g}%" width="{share:g}%" height="10"/></svg>'
    )
    kind = ' class="back"' if back else ""
    return Html(
        f"<li{kind}><p><b>{filled(say(words), names)}</b></p>{bar}"
        f'<p class="muted">{when(move.at)} · {h(stays)} · {h(say("cause"))} {bdi(move.cause)}</p></li>'
    )


# --- why ---


def told(one: Read, story: Story, say: Say) -> Html:
    """A release that answers or answered stands open; others are folded."""
    live = {move.stable for move in story.moves} | {move.canary for move in story.moves}
    title = f"{bdi(one.name)} {pills(one, say)}"
    body = join(
        [
            table(("", ""), about(one, say)),
            *gates(one, say),
            *waivers(one, say),
            *scans(one, say),
            *tests(one, story, say),
        ]
    )
    opened = " open" if one.id in live or len(story.releases) == 1 else ""
    return Html(f'<details class="big"{opened}><summary>{title}</summary>{body}</details>')


def pills(one: Read | None, say: Say) -> Html:
    if one is None:
        return Html("")
    said = sorted(one.of(GATE), key=lambda gate: place(str(gate.get("gate"))))
    return join(
        [
            verdict(word_of(gate), f"{say(str(gate.get('gate', '')))} {say(word_of(gate))}")
            for gate in said
            if gate.get("required")
        ],
        " ",
    )


def word_of(gate: Mapping[str, Any]) -> str:
    return str(gate.get("verdict", ""))


def place(gate: str) -> tuple[int, str]:
    return (ORDER.find(gate) % 1000, gate)


def about(one: Read, say: Say) -> list[tuple[object, object]]:
    code_ = one.manifest.get("code", {})
    commit = code_.get("commit", "") if isinstance(code_, dict) else ""
    made_of: object = say("not under version control")
    if commit:
        dirty = f" {say('with local changes')}" if code_.get("dirty") else ""
        made_of = Html(f"{digest(str(commit))}{h(dirty)}")
    rows: list[tuple[object, object]] = [
        (say("Id"), digest(one.id)),
        (say("Made"), bdi(str(one.manifest.get("created", ""))[:19].replace("T", " ") + " UTC")),
        (say("Code"), made_of),
    ]
    for made in one.of(PROVENANCE):
        definition = made.get("buildDefinition", {})
        given = definition.get("externalParameters", {})
        rows.append((say("Pipeline"), bdi(str(given.get("pipeline", given.get("name", ""))))))
        rows.append((say("Run"), bdi(str(one.manifest.get("run", "")))))
        if "seed" in given:
            rows.append((say("Seed"), bdi(given["seed"])))
        params = given.get("params") or {}
        if params:
            shown = ", ".join(f"{key} = {params[key]}" for key in sorted(params))
            rows.append((say("Parameters"), bdi(shown)))
        needed = [
            Html(f"{bdi(str(part_.get('name')))} {code(next(iter(part_['digest'].values()), ''))}")
            for part_ in definition.get("resolvedDependencies", [])
            if isinstance(part_.get("digest"), dict)
        ]
        rows.append((say("Made from"), join(needed, "<br>")))
    said = one.of(GATE)
    policies = sorted({str(gate.get("policy", "")) for gate in said} - {""})
    if policies:
        rows.append((say("Rules that decided"), join([digest(p) for p in policies], " ")))
    champions = sorted({str(gate.get("champion") or "") for gate in said} - {""})
    if champions:
        rows.append((say("Compared with"), join([digest(c) for c in champions], " ")))
    folder = f"releases/{digests.short(one.id)}"
    cards = [
        Html(f'<a href="{folder}/{name}">{h(words)}</a>')
        for name, words in (("card.html", "English"), ("card.ar.html", "العربية"))
        if name in one.manifest.get("files", {})
    ]
    if cards:
        rows.append((say("Model card"), join(cards, " · ")))
    return rows


def gates(one: Read, say: Say) -> Iterable[Html]:
    said = sorted(one.of(GATE), key=lambda gate: place(str(gate.get("gate"))))
    if not said:
        yield Html(f"<p>{h(say('No verdict of a gate lies in this release.'))}</p>")
        return
    words = "A verdict is decided on the bound of the interval, not on the value."
    yield Html(f"<p>{h(say(words))}</p>")
    for gate in said:
        name, word = str(gate.get("gate", "")), word_of(gate)
        asked = say("required" if gate.get("required") else "not required")
        yield Html(f"<h3>{h(say(name))} {verdict(word, say(word))} <small>{h(asked)}</small></h3>")
        results = results_of(gate)
        if not results:
            yield Html(f"<p>{h(say('No check was made.'))}</p>")
            continue
        yield from check_tables(results, say)


def results_of(gate: Mapping[str, Any]) -> list[CheckResult]:
    """Numbers travel as text in what is signed."""
    try:
        return msgspec.convert(gate.get("results", []), list[CheckResult], strict=False)
    except msgspec.ValidationError:
        return []


def waivers(one: Read, say: Say) -> Iterable[Html]:
    found: list[Waiver] = []
    for gate in one.of(GATE):
        try:
            found += msgspec.convert(gate.get("waivers", []), list[Waiver], strict=False)
        except msgspec.ValidationError:
            continue
    if found:
        head = [say(word) for word in ("Check", "Owner", "Reason", "Expires")]
        rows = [(bdi(w.check), bdi(w.owner), bdi(w.reason), when(w.expires)) for w in found]
        yield Html(f"<h3>{h(say('Waivers'))}</h3>")
        yield table(head, rows, "--t-")


def scans(one: Read, say: Say) -> Iterable[Html]:
    lines: list[Html] = []
    for said in one.of(VULNERABILITIES):
        scanner = said.get("scanner", {})
        scanner = scanner if isinstance(scanner, dict) else {}
        found = scanner.get("result", [])
        of = (
            scanner.get("db", {}).get("lastUpdate", "")
            if isinstance(scanner.get("db"), dict)
            else ""
        )
        names = ", ".join(str(each.get("id", "")) for each in found if isinstance(each, dict))
        lines.append(
            Html(
                f"<li>{h(say('Known vulnerabilities'))}: {bdi(len(found))} {bdi(names)} · "
                f"{h(say('advisories of'))} {bdi(str(of)[:10])}</li>"
            )
        )
    for said in one.of(CODE_SCAN):
        found = said.get("findings", [])
        lines.append(Html(f"<li>{h(say('Findings in the code'))}: {bdi(len(found))}</li>"))
    if lines:
        yield Html(f"<h3>{h(say('Scans'))}</h3><ul>{join(lines)}</ul>")


def tests(one: Read, story: Story, say: Say) -> Iterable[Html]:
    """Reports about the very code of this release."""
    code_ = one.manifest.get("code", {})
    tree = code_.get("tree", "") if isinstance(code_, dict) else ""
    reports = [report for report in in_order(story.tests) if tree and report.tree == tree]
    if not reports:
        return
    lines = []
    for report in reports:
        word = str(report.verdict)
        counts = ", ".join(f"{number} {name}" for name, number in report.counts().items())
        lines.append(
            Html(
                f"<li>{verdict(word, say(word))} {bdi(counts)} · {when(report.at)} · "
                f'<a href="tests/{h(report.id)}.junit.xml">JUnit</a></li>'
            )
        )
    yield Html(f"<h3>{h(say('Tests of the project'))}</h3><ul>{join(lines)}</ul>")


# --- who ---


def in_order(facts: Sequence[Any]) -> list[Any]:
    return sorted(facts, key=lambda fact: fact.id)


def approving(story: Story, change: Change) -> list[Approval]:
    return [
        approval
        for approval in in_order(story.approvals)
        if approval.change == change.id
        and approval.decision is Decision.APPROVE
        and not approval.void
    ]


def allowed(story: Story, say: Say) -> Iterable[Html]:
    if not story.changes:
        yield Html(f"<p>{h(say('No change was asked for.'))}</p>")
    for change in reversed(in_order(story.changes)):
        state = str(change.state)
        kind = "pass" if change.state in GOOD else "fail" if change.state in BAD else "inconclusive"
        yield Html(f"<h3>{bdi(change.id)} {bdi(change.title)} {verdict(kind, say(state))}</h3>")
        risk = f"{say(str(change.risk))}" + (
            f": {'; '.join(change.risk_reasons)}" if change.risk_reasons else ""
        )
        rows: list[tuple[object, object]] = [
            (say("Asked by"), code(change.author)),
            (say("Asked"), when(change.opened)),
            (say("Reason"), bdi(change.reason)),
            (say("Environment"), bdi(change.environment)),
            (say("Risk"), bdi(risk)),
            (say("Plan"), bdi(change.plan)),
            (say("Way back"), bdi(change.back_out)),
            (say("Evidence"), code(change.evidence)),
        ]
        yield table(("", ""), [row_ for row_ in rows if str(row_[1]) != "<bdi></bdi>"])
        decisions = [a for a in in_order(story.approvals) if a.change == change.id]
        counted = len({a.person for a in approving(story, change)})
        yield Html(
            f"<p>{h(say('Approvals'))}: {number(counted)} · {h(say('needed'))}: "
            f"{number(change.approvals_needed)}</p>"
        )
        head = [say(word) for word in ("Who", "Decision", "When", "Comment", "valid until")]
        yield table(head, [said_of(a, say) for a in decisions], "---t-") or Html(
            f"<p>{h(say('Nobody has decided yet.'))}</p>"
        )


def said_of(approval: Approval, say: Say) -> tuple[object, ...]:
    kind = "pass" if approval.decision is Decision.APPROVE else "fail"
    shown = verdict("inconclusive" if approval.void else kind, say(str(approval.decision)))
    void = f" {say('void')}: {approval.void}" if approval.void else ""
    return (
        bdi(approval.principal),
        Html(f"{shown}{h(void)}"),
        when(approval.at),
        bdi(approval.comment),
        when(approval.expires),
    )


# --- the rollouts ---


def decided(story: Story, say: Say) -> Iterable[Html]:
    groups: dict[str, list[RolloutDecision]] = {}
    for decision in sorted(story.decisions, key=lambda fact: (fact.at, fact.id)):
        groups.setdefault(decision.rollout, []).append(decision)
    if not groups:
        yield Html(f"<p>{h(say('No rollout has decided anything.'))}</p>")
        return
    yield Html(f"<p>{h(say('Counts are those of the canary / of the stable release.'))}</p>")
    known = {rollout.id: rollout for rollout in story.rollouts}
    head = [say(word) for word in ("At", "Step", "Decision")]
    head += [say(word) for word in ("Requests", "Errors", "Wrong answers")]
    head.append(say("Reason"))
    for rollout, found in groups.items():
        one = known.get(rollout)
        name = (
            f" {bdi(one.previous_version or '-')} → {bdi(one.version)}, {bdi(one.environment)}"
            if one
            else ""
        )
        yield Html(f"<h3>{bdi(rollout)}{name}</h3>")
        mattered = [d for d in found if d.action != "hold"] or found[-1:]
        yield table(head, [looked(d, one, say) for d in mattered], "n--nnnt")
        if len(mattered) < len(found):
            many = table(head, [looked(d, one, say) for d in found], "n--nnnt")
            words = f"{h(say('Every look of the analysis'))} {bdi(len(found))}"
            yield Html(f"<details><summary>{words}</summary>{many}</details>")


def looked(decision: RolloutDecision, rollout: Rollout | None, say: Say) -> tuple[object, ...]:
    kinds = {Outcome.PROMOTE: "pass", Outcome.ROLLBACK: "fail"}
    word = kinds.get(decision.outcome, "no difference yet")
    totals = decision.numbers.get("totals", {})
    totals = totals if isinstance(totals, dict) else {}
    step = str(decision.step)
    if rollout is not None and 0 <= decision.step < len(rollout.plan.steps_pct):
        step = f"{rollout.plan.steps_pct[decision.step]} %"
    reasons = [Html(f"<li>{bdi(reason)}</li>") for reason in decision.reasons]
    return (
        when(decision.at),
        bdi(step),
        verdict(word, say(decision.action)),
        number(requests(totals.get("errors"))),
        number(counts(totals.get("errors"))),
        number(counts(totals.get("labels"))),
        Html(f"<ul>{join(reasons)}</ul>") if reasons else "",
    )


def requests(total: object) -> str:
    """Of the canary / of stable."""
    match total:
        case [int(n_c), int(), int(n_s), int()]:
            return f"{n_c:,} / {n_s:,}"
        case _:
            return ""


def counts(total: object) -> str:
    match total:
        case [int(n_c), int(x_c), int(n_s), int(x_s)] if n_c or n_s:
            return f"{share(x_c, n_c)} / {share(x_s, n_s)}"
        case _:
            return ""


def share(bad: int, of: int) -> str:
    return f"{bad:,}" + (f" ({100 * bad / of:.3g} %)" if of else "")


# --- the log, and how to check ---


def logged(story: Story, say: Say) -> Iterable[Html]:
    size, root = story.log.get("size", 0), str(story.log.get("root", ""))
    yield Html(
        f"<p>{bdi(f'{size:,}')} {h(say('events'))}, {h(say('Merkle root'))} {digest(root)}</p>"
    )
    if story.checkpoint:
        yield Html(f'<h3>{h(say("Checkpoint"))}</h3><pre dir="ltr">{h(story.checkpoint)}</pre>')
    else:
        yield Html(f"<p>{h(say('This pack holds no signed checkpoint.'))}</p>")
    yield Html(f"<h3>{h(say('What is proved when it verifies'))}</h3>{points(PROVED, say)}")
    yield Html(f"<h3>{h(say('What is not'))}</h3>{points(NOT_PROVED, say)}")


def points(words: Sequence[str], say: Say) -> Html:
    return Html(f"<ul>{join([Html(f'<li>{h(say(word))}</li>') for word in words])}</ul>")


PROVED: Final = (
    "Each file is byte for byte the one that was sealed; none was added or taken away.",
    (
        "Each release is signed as a whole, and each verdict of a gate by a key of that role, over "
        "exactly this model."
    ),
    (
        "Each approval is signed by who gave it, over this release and this evidence, and is not by an "
        "author."
    ),
    "The events of the log lead to its root: none was dropped, changed or moved.",
    (
        "Whatever is told here about releases, changes, approvals, decisions and live moves has its event "
        "in the log."
    ),
)
NOT_PROVED: Final = (
    (
        "That nobody was shown another log: a witness who cosigned the checkpoint proves it, or a "
        "checkpoint that you keep."
    ),
    "That times are right: they are this system's own, unless a witness's time stands beside them.",
)


def checking(say: Say) -> Iterable[Html]:
    alone = "Or with the verifier that needs nothing of Falaj, and came to you on another way, too:"
    first = "Take the trust root that came to you on another way; the keys inside this pack prove nothing."
    last = "It ends with 0 when everything holds, with 7 and the name of each file that differs when not."
    yield Html(
        f"<ol><li>{h(say(first))}</li><li>{h(say('On any machine, without a network:'))}"
        '<pre dir="ltr">falaj verify PACK.zip --trust TRUST.json</pre>'
        f"{h(say(alone))}"
        '<pre dir="ltr">python3 falaj-verify.pyz pack PACK.zip --trust TRUST.json</pre></li>'
        f"<li>{h(say(last))}</li></ol>"
    )
    yield Html(f"<h3>{h(say('In this pack'))}</h3>")
    rows = [
        ("releases/", "each release as it was signed"),
        ("approvals/", "what approvers signed"),
        ("gates/", "reports of gates, with waivers"),
        ("tests/", "reports of tests, for people and as JUnit"),
        ("log/events.jsonl", "the whole audit log"),
    ]
    yield table(
        [say("File"), say("What it is")],
        [(Html(f"<bdi><code>{h(name)}</code></bdi>"), say(words)) for name, words in rows],
    )
    seal = "manifest.json lists every file with its digest; manifest.dsse.json seals it."
    yield Html(f"<p>{h(say(seal))}</p>")


# --- small things ---


def when(at: datetime) -> Html:
    return bdi(at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))


def spell(lasting: timedelta, say: Say) -> Html:
    """The two largest units."""
    left = max(int(lasting.total_seconds()), 0)
    found: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or (unit == "s" and not found):
            found.append(f"{number} {say(unit)}")
    return bdi(" ".join(found[:2]))


def number(text: object) -> Html:
    """Numbers and their signs keep their order in a page from right to left."""
    return Html(f'<bdi dir="ltr">{h(text)}</bdi>')


def filled(words: str, names: Mapping[str, Html]) -> Html:
    """A sentence with its names in it; each language has its own order."""
    text = str(h(words))
    for name, shown in names.items():
        text = text.replace(f"{{{name}}}", shown)
    return Html(text)


def code(text: str) -> Html:
    """A digest or an id, cut; the whole one stands in the facts."""
    bare = text.removeprefix("sha256:")
    cut = bare if len(bare) <= 14 else f"{bare[:12]}…"
    return Html(f"<bdi><code>{h(cut)}</code></bdi>")


def coded(text: str) -> Html:
    """Words between backticks are code."""
    pieces = text.split("`")
    return join(
        [Html(f"<code>{h(piece)}</code>") if at % 2 else piece for at, piece in enumerate(pieces)]
    )
