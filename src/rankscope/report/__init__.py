"""One HTML page of a run: everything measured, to look at in a browser and to pass on as a single file.

`collect` takes what the page shows from a run's Dataset, as plain values; `write` puts them into a page with the
scripts that draw them. Each section is there where its data is, so that any experiment and any sweep has a page.
"""

from rankscope.report.collect import collect as collect
from rankscope.report.write import write as write
