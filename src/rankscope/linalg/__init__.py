"""Matrix decompositions: leading eigenvalues, singular values and singular vectors; thread counts."""

from rankscope.linalg.eigenvalues import leading_eigenvalues as leading_eigenvalues
from rankscope.linalg.leading_triplets import Triplets as Triplets
from rankscope.linalg.leading_triplets import leading_triplets as leading_triplets
from rankscope.linalg.singular_values import leading_singular_values as leading_singular_values
