"""The sentiment task, and the preparation of its data from the treebank, GloVe files and the package index."""

from rankscope.tasks.sentiment.data import SentimentData as SentimentData
from rankscope.tasks.sentiment.data import Split as Split
from rankscope.tasks.sentiment.data import load_data as load_data
from rankscope.tasks.sentiment.data import prepare as prepare
from rankscope.tasks.sentiment.readers import Labelled as Labelled
from rankscope.tasks.sentiment.readers import WordVectors as WordVectors
from rankscope.tasks.sentiment.readers import read_glove as read_glove
from rankscope.tasks.sentiment.readers import read_snippets as read_snippets
from rankscope.tasks.sentiment.readers import read_treebank as read_treebank
from rankscope.tasks.sentiment.readers import tokenize as tokenize
