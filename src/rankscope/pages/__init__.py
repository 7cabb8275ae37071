"""What the HTML pages share: their skeleton, their look in light and dark, and plotly.js.

A page is one string. It asks nobody for anything that its Content-Security-Policy does not name, and its scripts and
styles are named there one by one, so that a text which found its way in does not run.
"""

from rankscope.pages.plotly_source import plotly_javascript as plotly_javascript
from rankscope.pages.shell import Data as Data
from rankscope.pages.shell import Inline as Inline
from rankscope.pages.shell import Linked as Linked
from rankscope.pages.shell import page as page
from rankscope.pages.shell import policy as policy
from rankscope.pages.shell import shared as shared
