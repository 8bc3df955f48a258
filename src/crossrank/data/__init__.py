"""Read files, data frames and dictionaries as judged pairs and test collections. Needs no torch.

>>> from crossrank.data import Dataset
>>> Dataset.from_dicts({"q": "what is a cake"}, {"d": "a cake is sweet"}, {"q": {"d": 1}}).qrels
{'q': {'d': 1}}
"""

from crossrank.data.dataset import Dataset
from crossrank.data.judgements import Judgement, ReadReport, ReadSettings
from crossrank.data.open_dataset import open_dataset

__all__ = ["Dataset", "Judgement", "ReadReport", "ReadSettings", "open_dataset"]
