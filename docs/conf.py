"""How `make docs` builds the site: pages in Markdown, the gallery run anew, the reference from the docstrings."""

from datetime import UTC, datetime

from sphinx_gallery.sorting import ExplicitOrder

import rankscope

project = "rankscope"
author = "the rankscope developers"
copyright = f"{datetime.now(UTC).year}, {author}"
release = version = rankscope.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a request to anybody else's server
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
root_doc = "index"
default_role = "code"
exclude_patterns = ["_build", "gallery/*"]
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "rankscope"
html_static_path = ["_static"]
html_css_files = ["rankscope.css"]
html_show_sphinx = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 88
python_display_short_literal_types = True
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

EXAMPLES = (
    "plot_low_rank_change.py",
    "plot_shuffled_connectivity.py",
    "plot_gain_and_learning.py",
    "plot_anatomy.py",
    "plot_needed.py",
    "plot_populations.py",
    "plot_regimes.py",
    "plot_flow.py",
    "plot_eigenvalues.py",
    "plot_theory_and_simulation.py",
    "plot_own_task.py",
    "plot_two_checkpoints.py",
)
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": ExplicitOrder(EXAMPLES),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "image_srcset": ["2x"],
    "matplotlib_animations": False,
    "write_computation_times": False,
}
suppress_warnings = [
    "config.cache"
]  # the order of the gallery is an object, which is no reason for concern
