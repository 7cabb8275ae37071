"""Sentences with a label, vectors of words, and where they come from: the treebank, GloVe files, the package index."""

from rankscope.text.data import SentimentData as SentimentData
from rankscope.text.data import Split as Split
from rankscope.text.data import load_data as load_data
from rankscope.text.data import prepare as prepare
from rankscope.text.glove import WordVectors as WordVectors
from rankscope.text.glove import read_glove as read_glove
from rankscope.text.sentences import Labelled as Labelled
from rankscope.text.sentences import tokenise as tokenise
from rankscope.text.snippets import read_snippets as read_snippets
from rankscope.text.treebank import read_treebank as read_treebank
