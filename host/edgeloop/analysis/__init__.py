"""From raw numbers to opinions, all of it pure: plans, schedules, statistics, scores, trust, verdicts.

Nothing here touches a board or a file; the one exception is `scoring`, which calls a user's metric functions.
"""
