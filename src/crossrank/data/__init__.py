"""Everything that is read: files, data frames and dictionaries -> judged pairs and test collections. Needs no torch."""
