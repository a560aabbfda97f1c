"""From job to outcome: calculators by name, staged relaxations with guards, and the processes that run them."""
