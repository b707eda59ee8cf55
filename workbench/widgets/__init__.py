"""For the hand: sliders, forms and pickers; they hold no numbers of their own."""
