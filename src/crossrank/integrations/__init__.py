"""At home in other frameworks: one thin adapter each."""
