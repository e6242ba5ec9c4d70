"""From taxonomy and results to the pages of the site."""
