"""Shared parts of the HTML pages: skeleton, Content-Security-Policy, style, charts, and plotly.js.

A page is one string. It makes no requests other than those its policy names, and the policy lists every script and
style, so injected text is not executed.
"""

from rankscope.pages.plotly_source import plotly_javascript as plotly_javascript
from rankscope.pages.shell import Data as Data
from rankscope.pages.shell import Inline as Inline
from rankscope.pages.shell import Linked as Linked
from rankscope.pages.shell import page as page
from rankscope.pages.shell import policy as policy
from rankscope.pages.shell import shared as shared
from rankscope.pages.shell import templates as templates
