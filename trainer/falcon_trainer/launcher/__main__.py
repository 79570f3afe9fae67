"""`python -m falcon_trainer.launcher STAGE`."""

from falcon_trainer.launcher import main

main()
