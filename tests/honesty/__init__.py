"""The proof that verdicts are honest: how often a limit that is exactly the truth is passed, and failed.

`make honesty` simulates boards whose truth is known (`noise`), lets the very functions that judge
a measurement decide (`times`, `scores`), and writes the table of false passes and false fails (`page`). One seed, one
table.
"""
