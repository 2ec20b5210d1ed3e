"""JUnit: a test case per output and set of inputs, for the servers that collect tests."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from deploydcn.parity import OutputComparison, ParityReport

NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that an XML document cannot hold, such as those that colour a runtime's messages."""


def junit(report: ParityReport, environment: Mapping[str, str], command: str) -> str:
    """The document. Where the models part, if that was looked for, stands in the suite's output."""
    failed = sum(not output.passes(report.tolerance.relative) for case in report.cases for output in case.outputs)
    counts = {"tests": str(sum(len(case.outputs) for case in report.cases)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(f"{report.candidate} against {report.reference}"), **counts})
    properties = ElementTree.SubElement(suite, "properties")
    told = {"tolerance": f"{report.tolerance.relative:.3g}", "reason": report.tolerance.reason, "command": command, **environment}
    for name, value in told.items():
        if value:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for case in report.cases:
        for output in case.outputs:
            test = ElementTree.SubElement(suite, "testcase", {"classname": _clean(case.label), "name": _clean(output.name)})
            if not output.passes(report.tolerance.relative):
                failure = ElementTree.SubElement(test, "failure", {"type": "parity", "message": _clean(_message(output, report))})
                failure.text = _clean("\n".join(f"{name}: {value}" for name, value in output.to_json().items()))
    if report.location is not None:
        ElementTree.SubElement(suite, "system-out").text = _clean(report.location.explanation)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _message(output: OutputComparison, report: ParityReport) -> str:
    if output.mismatch:
        return output.mismatch
    return f"{output.worst_channel:.3g} of a channel's scale (max abs {output.max_abs:.3g}); allowed {report.tolerance.relative:.3g}"


def _clean(text: str) -> str:
    return NO_XML.sub("\ufffd", text)
