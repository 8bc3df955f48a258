"""How the tables became what they are: numbered steps, to which later ones are added; none is ever changed."""
