"""Text: where it comes from, how it becomes tokens, and how it is cut into windows.

corpora     documents from files, folders, tables, data sets, standard input and the interpreter's own library
tokenizer   text into ids and back
prepare     a source into a folder of memory-mapped windows, split by document
windows     those windows
library     prose, code and labels from the standard library
known       a grammar whose true probabilities can be computed
labels      texts with a class, from CSV or JSON lines
pairs       minimal pairs: a good text and a bad one
"""
