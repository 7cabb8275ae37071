"""Matrix decompositions that several rooms need."""

from rankscope.linalg.eigenvalues import leading_eigenvalues as leading_eigenvalues
from rankscope.linalg.singular_values import leading_singular_values as leading_singular_values
