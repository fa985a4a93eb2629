"""JUnit XML, so that a CI system shows each limit as a test case.

Written with the standard library: the dialect used is five elements. INCONCLUSIVE, INVALID and ERROR are
errors, never passes; so is a run that has not passed where no single limit says why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from edgeloop.core.events import Entry, Judgement
from edgeloop.core.verdict import Finding, Outcome
from edgeloop.reports.run_view import RunView, final_judgements, more_needed

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 can't hold; messages of foreign tools may have them."""


def text(entries: Sequence[Entry]) -> str:
    """One test case for each limit and target of the network that was output, or of the nearest miss."""
    run = RunView.of(entries)
    best = run.best
    judgements = final_judgements(best) if best is not None else []
    suite = ET.Element("testsuite", name=_clean(f"edgeloop {run.name}"), time=f"{run.wall_s:.3f}")
    for judgement in judgements:
        for finding in judgement.verdict.findings:
            _case(suite, judgement, finding, is_proven=best is not None and best.passed)
    undone = run.word != "PASSED" and suite.find("testcase/failure") is None and suite.find("testcase/error") is None
    if undone or not len(suite):
        case = ET.SubElement(suite, "testcase", name="run", classname=_clean(run.name))
        ET.SubElement(case, "error", message=_clean(run.sentence), type="ERROR")
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def write(entries: Sequence[Entry], path: Path) -> None:
    """Write the document to a file."""
    path.write_text(text(entries), encoding="utf-8")


def _case(suite: ET.Element, judgement: Judgement, finding: Finding, *, is_proven: bool) -> None:
    name = f"{finding.limit_id} {finding.text}"
    target = f"{judgement.target} (emulated)" if judgement.emulated else judgement.target
    case = ET.SubElement(suite, "testcase", name=_clean(name), classname=_clean(target))
    if finding.requirement:
        properties = ET.SubElement(case, "properties")
        ET.SubElement(properties, "property", name="requirement", value=_clean(finding.requirement))
    outcome = finding.outcome
    if judgement.verdict.outcome in (Outcome.INVALID, Outcome.ERROR):
        # What was measured outside the declared environment decides no limit, whatever its finding says.
        outcome = judgement.verdict.outcome
    if outcome is Outcome.FAIL:
        ET.SubElement(case, "failure", message=_clean(finding.reason), type=outcome.value)
        return
    if outcome is not Outcome.PASS:
        message = "; ".join(filter(None, (*judgement.verdict.reasons, finding.reason, more_needed(finding))))
        ET.SubElement(case, "error", message=_clean(message), type=outcome.value)
        return
    if not is_proven and not judgement.plan.may_pass:
        message = f"inside the limit under the {judgement.plan.profile} plan, which passes nothing: {finding.reason}"
        ET.SubElement(case, "error", message=_clean(message), type="UNCONFIRMED")


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
