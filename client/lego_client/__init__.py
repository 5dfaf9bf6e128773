"""The wearer's side of LEGO-AR: cameras in, questions up, guidance shown. Never imports torch."""
