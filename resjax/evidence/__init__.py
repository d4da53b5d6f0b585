"""Claims put to the test: studies, their runs with several seeds, intervals and verdicts."""

from resjax.evidence.definition import Arm, Claim, Study

__all__ = ['Arm', 'Claim', 'Study']
