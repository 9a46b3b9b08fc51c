"""The model card as a page with pictures, in English and Arabic; what nobody said is named as missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from falaj.base import digests, time
from falaj.base.charts import short
from falaj.base.checktable import check_tables
from falaj.base.sheets import Html, bdi, digest, h, join, sheet, table, verdict
from falaj.facts.checks import GateReport
from falaj.facts.data import Label
from falaj.facts.models import Schema
from falaj.facts.releases import DatasetRef
from falaj.facts.runs import Run
from falaj.releases.card import NOTES, memory_of

__all__ = ["LANGUAGES", "card_page", "speaker"]

LANGUAGES: Final = ("en", "ar")
ORDER: Final = "quality bias robustness latency security data"  # what people ask for first

# English words of the page -> Arabic.
ARABIC: Final[Mapping[str, str]] = {
    "Model card": "بطاقة النموذج",
    "Summary": "ملخص",
    "Intended use": "الاستخدام المقصود",
    "Intended users": "المستخدمون المقصودون",
    "Out of scope": "خارج النطاق",
    "Known limits": "الحدود المعروفة",
    "Ethical considerations": "الاعتبارات الأخلاقية",
    "Owner": "المالك",
    "Contact": "جهة الاتصال",
    "Missing": "معلومات ناقصة",
    "Nobody has stated": "لم يذكر أحد",
    "What it is": "ما هو النموذج",
    "Task": "المهمة",
    "Runtime": "بيئة التشغيل",
    "Decision threshold": "عتبة القرار",
    "none": "لا يوجد",
    "Model files": "ملفات النموذج",
    "Run": "التشغيل",
    "Pipeline": "خط المعالجة",
    "Code": "الشيفرة",
    "not under version control": "ليست تحت إدارة الإصدارات",
    "with local changes": "مع تغييرات محلية",
    "Seed": "البذرة",
    "Trained": "وقت التدريب",
    "Parameter": "معامل",
    "What goes in and out": "المدخلات والمخرجات",
    "Direction": "الاتجاه",
    "in": "داخل",
    "out": "خارج",
    "Name": "الاسم",
    "Type": "النوع",
    "Range": "المدى",
    "Unit": "الوحدة",
    "may be missing": "قد تكون مفقودة",
    "Data": "البيانات",
    "Dataset": "مجموعة البيانات",
    "Rows": "الصفوف",
    "Content": "المحتوى",
    "Classification": "التصنيف",
    "Countries": "الدول",
    "Purposes": "الأغراض",
    "not stated": "غير مذكور",
    "How good it is": "مدى جودته",
    "Verdicts are decided on the bound of the interval, not on the value. "
    "Bounds are one-sided, 95 %.": "يُحسم الحكم على حد الفترة لا على القيمة. الحدود من جانب واحد بنسبة 95 %.",
    "Check": "الفحص",
    "Verdict": "الحكم",
    "Value": "القيمة",
    "Interval": "الفترة",
    "Limit": "الحد",
    "Reason": "السبب",
    "required": "مطلوبة",
    "not required": "غير مطلوبة",
    "No check was made.": "لم يُجرَ أي فحص.",
    "Peak memory while it was timed": "ذروة الذاكرة أثناء القياس",
    "In pictures": "بالصور",
    "What moves its answers": "ما الذي يؤثر في إجاباته",
    "Waivers": "الإعفاءات",
    "Expires": "تاريخ الانتهاء",
    "pass": "ناجح",
    "fail": "راسب",
    "inconclusive": "غير حاسم",
    "error": "خطأ",
    "skipped": "متروك",
    "quality": "الجودة",
    "bias": "التحيز",
    "robustness": "المتانة",
    "latency": "زمن الاستجابة",
    "security": "الأمان",
    "data": "البيانات",
    "no explanation was made: falaj model explain": "لم يُصنع تفسير: falaj model explain",
    "the release was not timed": "لم يُقَس زمن استجابة الإصدار",
    "What is lost without it": "ما يُفقد بدونه",
    "How the score moves": "كيف تتغير الدرجة",
    "Column": "العمود",
    "Loss of": "فقدان",
    "95 % bounds": "حدود 95 %",
    "What it means": "المعنى",
    "too few rows": "صفوف قليلة جدا",
    "matters": "مؤثر",
    "not proven to matter": "لم يثبت تأثيره",
    "the metric is better with it shuffled: ask why": "يتحسن المقياس عند خلطه: اسأل عن السبب",
    "shuffled together": "خُلطت معا",
    "says nearly the same as": "يقول تقريبا ما يقوله",
    "mean score": "متوسط الدرجة",
    "mean score without it": "متوسط الدرجة بدونه",
    "rows that lack it": "صفوف تفتقر إليه",
    "score": "الدرجة",
    "Numbers": "الأرقام",
    "ROC": "منحنى خاصية التشغيل",
    "false positive rate": "معدل الإيجابيات الكاذبة",
    "true positive rate": "معدل الإيجابيات الصحيحة",
    "Reliability": "الموثوقية",
    "share of yes": "نسبة نعم",
    "Where the scores lie": "توزع الدرجات",
    "share of the rows": "نسبة الصفوف",
    "no group was compared": "لم تُقارن أي مجموعة",
}


def card_page(
    *,
    language: str = "en",
    model: str,
    version: str,
    task: str,
    runtime: str,
    schema: Schema,
    threshold: str | None,
    report: GateReport,
    run: Run,
    datasets: Sequence[DatasetRef],
    label: Label,
    notes: Mapping[str, str],
    pictures: Sequence[Html] = (),
    moved: Sequence[Html] = (),
) -> str:
    """The same facts give the same page.

    pictures: drawn from the held-out rows. moved: what moves the answers, where it was asked.
    """
    say = speaker(language)

    def part(title: str, *body: object) -> Html:
        return Html(f"<section><h2>{h(say(title))}</h2>{join(body)}</section>")

    said = {key: notes.get(key, "").strip() for key in NOTES}
    parts = [
        Html(f"<h1>{h(say('Model card'))}: {bdi(f'{model} {version}')}</h1>"),
        Html(f'<p class="lead">{verdict(str(report.verdict), say(str(report.verdict)))}</p>'),
        missing(said, report, moved, say),
    ]
    parts += [part(NOTES[key], paragraphs(words)) for key, words in said.items() if words]
    parts.append(part("How good it is", *quality(report, say)))
    if pictures:
        parts.append(part("In pictures", Html(f'<div class="pics">{join(pictures)}</div>')))
    if moved:
        parts.append(part("What moves its answers", *moved))
    parts.append(
        part("What it is", about(task, runtime, threshold, report, run, say)),
    )
    parts.append(part("What goes in and out", inputs(schema, say)))
    parts.append(part("Data", *made_from(datasets, label, say)))
    if report.waivers:
        rows = [(w.check, w.owner, w.reason, bdi(time.text(w.expires))) for w in report.waivers]
        head = [say(word) for word in ("Check", "Owner", "Reason", "Expires")]
        parts.append(part("Waivers", table(head, rows, "--t-")))
    return sheet(
        f"{say('Model card')}: {model} {version}",
        parts,
        language=language,
        from_right=language == "ar",
    )


def speaker(language: str) -> Callable[[str], str]:
    """English words of a page in its language."""
    return (lambda words: ARABIC.get(words, words)) if language == "ar" else str


def missing(said: Mapping[str, str], report: GateReport, moved: Sequence[Html], say: Any) -> Html:
    names = [say(NOTES[key]) for key, words in said.items() if not words]
    gates = {result.gate for result in report.results}
    if not moved:
        names.append(say("no explanation was made: falaj model explain"))
    if "latency" not in gates:
        names.append(say("the release was not timed"))
    if "bias" not in gates:
        names.append(say("no group was compared"))
    if not names:
        return Html("")
    listed = "".join(f"<li>{h(name)}</li>" for name in names)
    return Html(
        f'<section class="missing"><h2>{h(say("Missing"))}</h2>'
        f"<p>{h(say('Nobody has stated'))}:</p><ul>{listed}</ul></section>"
    )


def paragraphs(words: str) -> Html:
    return Html(
        "".join(f'<p dir="auto">{h(part)}</p>' for part in words.split("\n\n") if part.strip())
    )


def quality(report: GateReport, say: Any) -> Iterable[Html]:
    yield Html(
        "<p>"
        + h(
            say(
                "Verdicts are decided on the bound of the interval, not on the value. "
                "Bounds are one-sided, 95 %."
            )
        )
        + "</p>"
    )
    memory = memory_of(report)
    if memory is not None:
        words = say("Peak memory while it was timed")
        yield Html(f"<p>{h(words)}: {bdi(f'{memory:.0f} MB')}</p>")
    gates = {*report.required, *(result.gate for result in report.results)}
    for gate in sorted(gates, key=lambda one: (ORDER.find(one) % 100, one)):
        asked = say("required" if gate in report.required else "not required")
        word = str(report.verdict_of(gate))
        yield Html(f"<h3>{h(say(gate))} {verdict(word, say(word))} {h(asked)}</h3>")
        results = [result for result in report.results if result.gate == gate]
        if not results:
            yield Html(f"<p>{h(say('No check was made.'))}</p>")
        else:
            yield from check_tables(results, say)


def about(
    task: str, runtime: str, threshold: str | None, report: GateReport, run: Run, say: Any
) -> Html:
    code = say("not under version control")
    if run.code.commit:
        dirty = f" {say('with local changes')}" if run.code.dirty else ""
        code = Html(f"{digest(run.code.commit)}{h(dirty)}")
    rows: list[tuple[object, object]] = [
        (say("Task"), bdi(task)),
        (say("Runtime"), bdi(runtime)),
        (say("Decision threshold"), bdi(threshold or say("none"))),
        (say("Model files"), digest(report.subject)),
        (say("Run"), digest(run.id)),
        (say("Pipeline"), digest(run.pipeline)),
        (say("Code"), code),
        (say("Seed"), bdi(run.seed)),
        (say("Trained"), bdi(time.text(run.started))),
    ]
    rows += [
        (Html(f"{h(say('Parameter'))} {bdi(key)}"), bdi(run.parameters[key]))
        for key in sorted(run.parameters)
    ]
    return table(("", ""), rows)


def inputs(schema: Schema, say: Any) -> Html:
    rows: list[tuple[object, ...]] = []
    for direction, tensors in (("in", schema.inputs), ("out", schema.outputs)):
        for tensor in tensors:
            shape = " x ".join("any" if side < 0 else str(side) for side in tensor.shape)
            rows.append((say(direction), bdi(tensor.name), f"{tensor.datatype}, {shape}", "", ""))
            for column in tensor.columns:
                kind = say("may be missing") if column.nullable else ""
                span = f"{short(column.minimum) or '..'} - {short(column.maximum) or '..'}"
                rows.append((say(direction), bdi(column.name), kind, span, column.unit))
    return table([say(w) for w in ("Direction", "Name", "Type", "Range", "Unit")], rows, "---n-")


def made_from(datasets: Sequence[DatasetRef], label: Label, say: Any) -> Iterable[Html]:
    yield table(
        [say(word) for word in ("Dataset", "Rows", "Content")],
        [(bdi(d.dataset), f"{d.rows:,}", digest(digests.short(d.content))) for d in datasets],
        "-n-",
    )
    words = {
        "Classification": str(label.classification),
        "Countries": ", ".join(label.countries),
        "Purposes": ", ".join(label.purposes),
    }
    for name, value in words.items():
        yield Html(f"<p>{h(say(name))}: {bdi(value or say('not stated'))}</p>")
