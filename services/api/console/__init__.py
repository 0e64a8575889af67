"""The console at /admin: models, jobs, accounts and what was done with them, for people who are not programmers."""
