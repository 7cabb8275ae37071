"""Report: one self-contained HTML page with everything measured in a run.

`collect` returns the contents of the page as plain values, and `write` renders them. A section is shown if the run has
its data, so reports work for any experiment and any sweep.
"""

from rankscope.report.collect import collect as collect
from rankscope.report.write import write as write
