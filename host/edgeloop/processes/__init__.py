"""Child processes of this host: a job in, a result out, a deadline, an amount of memory."""
