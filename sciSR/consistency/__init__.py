"""Does a result explain its input? Measure D(result) - input under a stated sensor, and remove it.

Necessary, not sufficient: a result that is consistent may still be wrong in what the sensor cannot see.
"""

from sciSR.consistency.enforce import enforce
from sciSR.consistency.measure import Consistency, residual

__all__ = ["Consistency", "enforce", "residual"]
