"""One sentence per effect: what the stored data show, or that they show none.

Every verdict follows a criterion that is written beside it on the page. The thresholds are constants of the
file that uses them, chosen once and not fitted to any run.
"""

from twophase_fast.report.data import Run
from twophase_fast.report.findings.barrier import barrier_finding
from twophase_fast.report.findings.chaos import chaos_finding
from twophase_fast.report.findings.cone import cone_finding
from twophase_fast.report.findings.control import control_finding
from twophase_fast.report.findings.disagreement import disagreement_finding
from twophase_fast.report.findings.verdict import Finding

__all__ = ["Finding", "findings"]


def findings(run: Run) -> list[Finding]:
    """Return the findings of the effects that were measured, in the order of the page."""
    found = (
        chaos_finding(run),
        barrier_finding(run),
        disagreement_finding(run),
        cone_finding(run),
        control_finding(run),
    )
    return [finding for finding in found if finding is not None]
