"""`lego-client live`: the wearer's view with guidance in it, questions by keyboard or voice, answers as they come."""
