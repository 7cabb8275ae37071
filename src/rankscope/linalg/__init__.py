"""Matrix decompositions that several rooms need."""

from rankscope.linalg.singular_values import leading_singular_values as leading_singular_values
