"""The pages of an evidence pack: the story is told right, in two languages, whatever is in it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from falaj.audit import pages
from falaj.audit.pages import ARABIC, PAGES, Story, page
from falaj.base import canonical, digests, dsse
from falaj.facts.attestations import VULNERABILITIES, statement
from falaj.facts.changes import Approval, Change, ChangeKind, ChangeState, Decision, Risk
from falaj.facts.checks import Verdict
from falaj.facts.rollouts import LiveMove, Outcome, Rollout, RolloutDecision, RolloutPlan, Strategy
from falaj.facts.runs import Code, Environment
from falaj.facts.testing import TestOutcome, TestReport
from falaj.releases.build import release_id

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\u202e&\x00\ud800\"'{stable}"


@pytest.fixture(scope="module")
def releases(make_release, key_ring):
    made = make_release()
    said = statement(
        VULNERABILITIES,
        "lock",
        made.manifest.environment,
        {
            "scanner": {
                "db": {"lastUpdate": "2026-02-27T00:00:00Z"},
                "result": [{"id": "PYSEC-2026-1"}],
            }
        },
    )
    second = make_release(version="8", more=[dsse.seal(said, key_ring.signer("gater"))])
    return made, second


def change(number, release, version, state, **more):
    return Change(
        **{
            "id": f"CHG-{number:04}", "kind": ChangeKind.NORMAL, "state": state,
            "title": f"delay to {version}", "reason": "better", "model": "delay",
            "release": release, "version": version, "environment": "production",
            "evidence": "sha256:" + "e" * 64, "author": "p-author", "authors": ("p-author",),
            "risk": Risk.MEDIUM, "risk_reasons": ("new model file",), "approvals_needed": 1,
            "plan": "canary", "back_out": "7", "opened": AT, "since": AT, **more,
        }
    )  # fmt: skip


def approval(number, of, **more):
    return Approval(
        **{
            "id": f"A{number}", "change": of.id, "release": of.release, "evidence": of.evidence,
            "person": "p-layla", "principal": "layla", "decision": Decision.APPROVE,
            "comment": "read it", "at": AT, "expires": AT + timedelta(days=30), "envelope": "{}",
            **more,
        }
    )  # fmt: skip


def move(seq, minutes, stable, canary=None, weight=0, cause="RO-0002"):
    return LiveMove(
        id=f"M{seq}", environment="production", model="delay", stable=stable[0],
        stable_version=stable[1], canary=canary[0] if canary else "",
        canary_version=canary[1] if canary else "", weight_bp=weight,
        at=AT + timedelta(minutes=minutes), cause=cause, seq=seq,
    )  # fmt: skip


def decision(number, action, outcome, totals, minutes=3, **more):
    return RolloutDecision(
        **{
            "id": f"D{number}", "rollout": "RO-0002", "at": AT + timedelta(minutes=minutes),
            "step": 0, "outcome": outcome, "action": action, "reasons": ("evidence 21",),
            "numbers": {"totals": totals}, **more,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def story(releases):
    one, two = releases
    first = change(1, one.id, "7", ChangeState.IMPLEMENTED)
    second = change(2, two.id, "8", ChangeState.ROLLED_BACK)
    a, b = (one.id, "7"), (two.id, "8")
    rollout = Rollout(
        id="RO-0002", change="CHG-0002", environment="production", model="delay", release=two.id,
        version="8", previous=one.id, previous_version="7",
        plan=RolloutPlan(strategy=Strategy.CANARY), phase="rolled-back", salt="s", started=AT,
        since=AT,
    )  # fmt: skip
    return Story(
        project="flights",
        created=AT + timedelta(days=2, hours=3),
        releases={one.id: one.folder, two.id: two.folder},
        changes=[first, second],
        approvals=[approval(1, first), approval(2, second, void="new evidence")],
        decisions=[
            decision(1, "hold", Outcome.CONTINUE, {"errors": [69, 0, 1341, 0]}, minutes=2),
            decision(
                2, "rollback", Outcome.ROLLBACK,
                {"errors": [75, 3, 1419, 1], "labels": [73, 50, 1821, 470]},
            ),
        ],
        moves=[
            move(1, 0, a, cause="RO-0001"), move(2, 1, a, b), move(3, 2, a, b, 500),
            move(4, 4, a),
        ],
        rollouts=[rollout],
        tests=[],
        log={"size": 1234, "root": "ab" * 32},
        checkpoint="falaj.example/log\n1234\nq83v\n\n— signer AAAA",
    )  # fmt: skip


def plain(text):
    """What a reader sees, in one line."""
    text = re.sub(r"<(style|title)>.*?</\1>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))


def test_it_tells_what_answers_since_when_and_why(story, releases):
    told = plain(page(story))
    assert "production: delay 7" in told
    assert releases[0].id in told
    assert "Since2026-03-01 12:00:00 UTC" in told, "without a break since the first move"
    assert "Allowed byCHG-0001 delay to 7" in told
    assert "Approved bylayla" in told


def test_the_timeline_is_in_order_and_says_what_happened(story):
    told = plain(page(story))
    wanted = [
        "7 is the first to answer", "8 is made ready beside 7",
        "8 answers 5 % of requests, 7 the rest", "8 is taken back, 7 answers alone",
        "until this pack was written",
    ]  # fmt: skip
    places = [told.index(words) for words in wanted]
    assert places == sorted(places)
    assert "for 2 min" in told
    assert page(story).count('<li class="back">') == 1


def test_since_counts_from_the_last_break(story):
    b = (story.moves[1].canary, "8")
    a = (story.moves[0].stable, "7")
    moves = [move(1, 0, a), move(2, 5, b), move(3, 9, a), move(4, 12, a, b, 1000)]
    told = plain(page(story._replace(moves=moves)))
    assert "Since2026-03-01 12:09:00 UTC" in told
    assert "Since2026-03-01 12:12:00 UTC" in told, "the canary, too"
    assert "Share90 %" in told
    assert "Share10 %" in told


def test_gates_are_shown_with_their_numbers_and_rules(story):
    text = page(story)
    told = plain(text)
    assert "✓ quality pass" in told
    assert "0.8125" in told
    assert "0.79 - 0.83" in told
    assert 'aria-label="0.8125 [0.79, 0.83], limit 0.7"' in text
    assert "sha256:" + "7" * 64 in told, "the policy that decided"
    assert "depth = 6" in told
    assert "Known vulnerabilities: 1 PYSEC-2026-1 · advisories of 2026-02-27" in told


def test_who_allowed_what_and_what_became_of_it(story):
    told = plain(page(story))
    assert "CHG-0002 delay to 8 ✕ rolled-back" in told
    assert "Approvals: 0 · needed: 1" in told, "a void one does not count"
    assert "Approvals: 1 · needed: 1" in told
    assert "void: new evidence" in told
    assert "medium: new model file" in told


def test_decisions_are_shown_with_their_counts(story):
    told = plain(page(story))
    assert "RO-0002 7 → 8, production" in told
    assert "75 / 1,419" in told
    assert "3 (4 %) / 1 (0.0705 %)" in told
    assert "50 (68.5 %) / 470 (25.8 %)" in told
    assert "Every look of the analysis 2" in told


def test_the_log_and_what_is_proved(story):
    told = plain(page(story))
    assert "1,234 events" in told
    assert "falaj.example/log" in told
    assert "What is not" in told
    assert "falaj verify PACK.zip --trust TRUST.json" in told
    assert "holds no signed checkpoint" in plain(page(story._replace(checkpoint="")))


def test_tests_of_this_very_code_are_shown(story, releases, tmp_path):
    """A report about other code is not this release's."""
    made = releases[0]
    manifest = canonical.loads((made.folder / "release.json").read_bytes())
    manifest["code"]["tree"] = "sha256:" + "8" * 64
    folder = tmp_path / "r"
    (folder / "evidence").mkdir(parents=True)
    (folder / "release.json").write_bytes(canonical.dumps(manifest))
    report = TestReport(
        id="T1", at=AT, person="p", verdict=Verdict.FAIL, tree="sha256:" + "8" * 64,
        code=Code(commit="0" * 40), environment=Environment(), seconds=1.0,
        tests=(TestOutcome(name="a", outcome="passed"), TestOutcome(name="b", outcome="failed")),
    )  # fmt: skip
    other = TestReport(
        id="T2", at=AT, person="p", verdict=Verdict.PASS, tree="sha256:" + "9" * 64,
        code=Code(commit="0" * 40), environment=Environment(), seconds=1.0, tests=(),
    )  # fmt: skip
    text = page(story._replace(releases={made.id: folder}, tests=[report, other]))
    assert "✕ fail 1 passed, 1 failed" in plain(text)
    assert 'href="tests/T1.junit.xml"' in text
    assert "T2" not in text
    assert "No verdict of a gate lies in this release." in plain(text)


def test_an_empty_story():
    empty = Story("flights", AT, {}, [], [], [], [])
    for language in PAGES:
        told = plain(page(empty, language))
        assert "flights" in told
    assert "Nothing has answered yet." in plain(page(empty))
    assert "No change was asked for." in plain(page(empty))


# --- both languages, any content -------------------------------------------------------------------


class Balanced(HTMLParser):
    """Every tag that opens is closed, in its order."""

    VOID = frozenset({"meta", "br", "rect", "line", "circle", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.parametrize("language", PAGES)
def test_the_page_stands_alone(story, language):
    text = page(story, language)
    assert text == page(story, language), "the same story gives the same page"
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert not re.search(r'\b(src|style|on\w+)="', text)
    assert not re.search(r"https?://", text)
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)[1]
    assert not re.search(r"(?<!-)\b(left|right):|(margin|padding)-(left|right)", style)
    found = Balanced()
    found.feed(text)
    assert found.wrong == []
    assert found.open == []


@pytest.mark.parametrize("language", PAGES)
def test_hostile_words_stay_words(story, language):
    bad = change(
        3, HOSTILE, HOSTILE, ChangeState.APPROVED, title=HOSTILE, reason=HOSTILE, author=HOSTILE,
        risk_reasons=(HOSTILE,), plan=HOSTILE, back_out=HOSTILE, environment=HOSTILE,
    )  # fmt: skip
    moved = LiveMove(
        id="m", environment=HOSTILE, model=HOSTILE, stable=HOSTILE, stable_version=HOSTILE,
        canary=HOSTILE, canary_version=HOSTILE, weight_bp=10, at=AT, cause=HOSTILE, seq=1,
    )  # fmt: skip
    text = page(
        story._replace(
            project=HOSTILE,
            changes=[bad],
            approvals=[approval(9, bad, principal=HOSTILE, comment=HOSTILE, void=HOSTILE)],
            moves=[*story.moves, moved],
            decisions=[
                decision(7, HOSTILE, Outcome.PAUSE, HOSTILE, rollout=HOSTILE, reasons=(HOSTILE,)),
                decision(8, "x", Outcome.PAUSE, {"errors": [1, "x", None, 2], "labels": {}}),
            ],
            checkpoint=HOSTILE,
            log={"size": 1, "root": HOSTILE},
        ),
        language,
    )
    assert "<script" not in text
    assert "\x00" not in text
    assert text.encode()
    found = Balanced()
    found.feed(text)
    assert found.wrong == []
    assert found.open == []


EVIDENCE = (b"[]", b"{}", b'{"payload":"bm8="}', b'{"payload":"e30="}', b'"x"')


@pytest.mark.parametrize("content", EVIDENCE)
def test_evidence_of_another_form_is_left_out(story, releases, tmp_path, content):
    folder = tmp_path / "r"
    (folder / "evidence").mkdir(parents=True)
    (folder / "release.json").write_bytes((releases[0].folder / "release.json").read_bytes())
    (folder / "evidence" / "x.dsse.json").write_bytes(content)
    text = page(story._replace(releases={releases[0].id: folder}))
    assert "No verdict of a gate" in plain(text)


def test_every_word_of_the_page_is_translated(story, releases, tmp_path):
    """Headings, heads of tables and names of rows hold no Latin letter."""
    text = page(story, "ar")
    assert '<html lang="ar" dir="rtl">' in text
    shown = re.findall(r"<h2>(.*?)</h2>", text)
    shown += re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', text)
    shown += re.findall(r"<tr><td>([^<]+)</td>", text)
    shown += re.findall(r"<li>([^<]+)</li>", text)
    assert len(shown) > 40
    for words in shown:
        bare = re.sub(r"manifest\S+|JUnit|\.json", "", words)
        assert not re.search("[a-zA-Z]{2,}", bare), words


def test_every_word_that_can_be_said_is_translated():
    """Also those that this story does not tell."""
    source = Path(pages.__file__).read_text()
    asked = set(re.findall(r'say\("((?:[^"\\]|\\.)*)"\)', source))
    asked |= {
        str(state) for kind in (ChangeState, Risk, Decision, Outcome, Verdict) for state in kind
    }
    asked |= {"hold", "advance", "promote", "rollback", "pause", "abort"}
    asked |= {*pages.PROVED, *pages.NOT_PROVED}
    missing = {words for words in asked if words and words not in ARABIC}
    assert missing == set()


def test_every_link_leads_into_the_pack(story, releases, key_ring, tmp_path):
    import zipfile

    from falaj.audit.pack import write_pack
    from falaj.base import merkle

    write_pack(
        tmp_path / "p.zip", project="flights", created=story.created,
        release_folders=list(story.releases.values()), approvals=story.approvals,
        changes=story.changes, decisions=story.decisions, moves=story.moves, events=[],
        root=(0, merkle.root([])), trust="{}", signer=key_ring.signer("logr"),
        rollouts=story.rollouts,
    )  # fmt: skip
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        names = set(archive.namelist())
        for name in PAGES.values():
            found = Balanced()
            found.feed(archive.read(name).decode())
            assert found.links
            assert set(found.links) <= names
    assert digests.short(releases[0].id) == digests.short(release_id(releases[0].manifest))
